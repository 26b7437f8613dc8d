package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The tests need a cacheproxy: CACHEPROXY_URL, or http://127.0.0.1:8080.
var proxyURL = env("CACHEPROXY_URL", "http://127.0.0.1:8080")

func clientOf(urls ...string) *Client {
	client := &Client{
		Model:    env("MODEL", "all-MiniLM-L6-v2"),
		GiveUp:   time.Minute,
		MaxPause: 100 * time.Millisecond,
		HTTP:     NewHTTP(4),
	}
	for _, base := range urls {
		client.Servers = append(client.Servers, &Server{base + "/v1", "unused", &Breaker{pause: time.Hour}})
	}
	return client
}

func inputOf(count int) string {
	var lines strings.Builder
	for i := 0; i < count; i++ {
		fmt.Fprintf(&lines, "{\"id\": \"%d\", \"text\": \"chunk number %d\"}\n", i, i)
	}
	return lines.String()
}

// run embeds an input into an output, and returns what the run did and the ids of the output.
func run(t *testing.T, client *Client, input, output string) (Counts, map[string]bool) {
	t.Helper()
	journal, err := OpenJournal(output)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	counts, err := Run(context.Background(), client, journal, strings.NewReader(input), 8, 4)
	if err != nil {
		t.Fatal(err)
	}
	return counts, journal.Has
}

func lines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func TestWhatIsDoneIsNotEmbeddedAgain(t *testing.T) {
	output := filepath.Join(t.TempDir(), "vectors.jsonl")
	run(t, clientOf(proxyURL), inputOf(50), output)
	counts, has := run(t, clientOf(proxyURL), inputOf(100), output)

	if counts != (Counts{Embedded: 50, Before: 50}) || len(has) != 100 || lines(t, output) != 100 {
		t.Fatal(counts, len(has), lines(t, output))
	}
}

func TestHalfALineIsCutOffAndItsChunkEmbeddedAgain(t *testing.T) {
	output := filepath.Join(t.TempDir(), "vectors.jsonl")
	run(t, clientOf(proxyURL), inputOf(20), output)
	info, _ := os.Stat(output)
	if err := os.Truncate(output, info.Size()-100); err != nil {
		t.Fatal(err)
	}
	counts, has := run(t, clientOf(proxyURL), inputOf(20), output)

	if counts != (Counts{Embedded: 1, Before: 19}) || len(has) != 20 || lines(t, output) != 20 {
		t.Fatal(counts, len(has))
	}
}

func TestAChunkThatIsRefusedStopsNoOther(t *testing.T) {
	long := fmt.Sprintf("{\"id\": \"long\", \"text\": \"%s\"}\n", strings.Repeat("a ", 20_000))
	output := filepath.Join(t.TempDir(), "vectors.jsonl")
	counts, has := run(t, clientOf(proxyURL), long+inputOf(20), output)

	if counts != (Counts{Embedded: 20, Refused: 1}) || !has["long"] {
		t.Fatal(counts)
	}
}

func TestAProviderAnswersWhileTheProxyIsAway(t *testing.T) {
	client := clientOf("http://127.0.0.1:1", proxyURL)
	counts, _ := run(t, client, inputOf(100), filepath.Join(t.TempDir(), "vectors.jsonl"))

	if counts.Embedded != 100 || client.Servers[0].Breaker.Allows() {
		t.Fatal(counts)
	}
}

func TestABusyServerIsLeftAloneAsLongAsItSays(t *testing.T) {
	target, _ := url.Parse(proxyURL)
	forward := httputil.NewSingleHostReverseProxy(target)
	var asked, busyUntil atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			busyUntil.Store(time.Now().Add(time.Second).UnixNano())
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if time.Now().UnixNano() < busyUntil.Load() {
			t.Error("asked again too early")
		}
		forward.ServeHTTP(w, r)
	}))
	defer front.Close()
	client := clientOf(front.URL)
	vectors, err := client.Embed(context.Background(), []string{"a text"})

	if err != nil || len(vectors) != 1 || asked.Load() != 2 || !client.Servers[0].Breaker.Allows() {
		t.Fatal(err, asked.Load())
	}
}

func TestAWorkerThatFindsNoServerGivesUpAndLosesNothing(t *testing.T) {
	output := filepath.Join(t.TempDir(), "vectors.jsonl")
	client := clientOf("http://127.0.0.1:1")
	client.GiveUp = 200 * time.Millisecond
	journal, _ := OpenJournal(output)
	_, err := Run(context.Background(), client, journal, strings.NewReader(inputOf(20)), 8, 4)
	journal.Close()
	if err == nil || errors.As(err, new(*Refused)) {
		t.Fatal(err)
	}

	if counts, _ := run(t, clientOf(proxyURL), inputOf(20), output); counts.Embedded != 20 {
		t.Fatal(counts)
	}
}
