// The worker embeds a JSON Lines file of id and text, by many requests at a time.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"
)

// A Chunk is one line of the input.
type Chunk struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// Counts are what a run did.
type Counts struct{ Embedded, Refused, Before int }

// Run embeds the chunks of an input that the journal does not have. It stops at the first error
// that is not a chunk's own.
func Run(
	ctx context.Context, client *Client, journal *Journal, input io.Reader, batch, inFlight int,
) (Counts, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var counts Counts
	batches, results := make(chan []Chunk), make(chan []Done)
	failures := make(chan error, inFlight+1)
	fail := func(err error) {
		failures <- err
		cancel()
	}

	var reading, asking sync.WaitGroup
	reading.Add(1)
	go func() {
		defer reading.Done()
		defer close(batches)
		before, err := read(ctx, input, journal.has(), batch, batches)
		counts.Before = before
		if err != nil {
			fail(err)
		}
	}()
	for i := 0; i < inFlight; i++ {
		asking.Add(1)
		go func() {
			defer asking.Done()
			for chunks := range batches {
				rows, err := embed(ctx, client, chunks)
				if err != nil {
					fail(err)
					return
				}
				results <- rows
			}
		}()
	}
	go func() {
		asking.Wait()
		reading.Wait()
		close(results)
		close(failures)
	}()

	var broken error
	for rows := range results {
		if broken == nil {
			if broken = journal.Add(rows); broken != nil {
				cancel()
				continue
			}
		}
		for _, row := range rows {
			if row.Error == "" {
				counts.Embedded++
			} else {
				counts.Refused++
			}
		}
	}
	if broken != nil {
		return counts, broken
	}
	return counts, <-failures // nil if there was none
}

// embed answers for each chunk. Of a request that is refused, halves are tried, until the chunk
// that is at fault is alone.
func embed(ctx context.Context, client *Client, chunks []Chunk) ([]Done, error) {
	texts := make([]string, len(chunks))
	for i, chunk := range chunks {
		texts[i] = chunk.Text
	}
	vectors, err := client.Embed(ctx, texts)
	var refused *Refused
	switch {
	case errors.As(err, &refused) && len(chunks) == 1:
		return []Done{{ID: chunks[0].ID, Error: refused.Reason}}, nil
	case refused != nil:
		first, err := embed(ctx, client, chunks[:len(chunks)/2])
		if err != nil {
			return nil, err
		}
		second, err := embed(ctx, client, chunks[len(chunks)/2:])
		return append(first, second...), err
	case err != nil:
		return nil, err
	}
	rows := make([]Done, len(chunks))
	for i, chunk := range chunks {
		rows[i] = Done{ID: chunk.ID, Embedding: vectors[i]}
	}
	return rows, nil
}

// read sends the chunks that are not done in batches, and returns how many were done before.
func read(
	ctx context.Context, input io.Reader, done map[string]bool, batch int, batches chan<- []Chunk,
) (int, error) {
	lines := bufio.NewScanner(input)
	lines.Buffer(make([]byte, 1<<16), 1<<22)
	var chunks []Chunk
	before := 0
	send := func() {
		select {
		case batches <- chunks:
		case <-ctx.Done():
		}
		chunks = nil
	}
	for number := 1; lines.Scan() && ctx.Err() == nil; number++ {
		var chunk Chunk
		if err := json.Unmarshal(lines.Bytes(), &chunk); err != nil || chunk.ID == "" {
			return before, fmt.Errorf("line %d is no object with id and text", number)
		}
		if done[chunk.ID] {
			before++
			continue
		}
		if chunks = append(chunks, chunk); len(chunks) == batch {
			send()
		}
	}
	if len(chunks) > 0 {
		send()
	}
	if lines.Err() != nil {
		return before, lines.Err()
	}
	return before, ctx.Err()
}

func main() {
	var (
		proxy    = flag.String("url", env("CACHEPROXY_URL", "http://127.0.0.1:8080"), "the proxy")
		fallback = flag.String("fallback", os.Getenv("FALLBACK_URL"), "a provider's URL, with /v1")
		model    = flag.String("model", env("MODEL", "all-MiniLM-L6-v2"), "the model, at both")
		batch    = flag.Int("batch", 32, "chunks in a request")
		inFlight = flag.Int("in-flight", 8, "requests at a time")
		giveUp   = flag.Duration("give-up", 5*time.Minute, "how long to try one request")
		output   = flag.String("output", "vectors.jsonl", "the output, and the journal")
	)
	flag.Parse()
	if flag.NArg() != 1 || *batch < 1 || *inFlight < 1 {
		fmt.Fprintln(os.Stderr, "usage: worker [flags] chunks.jsonl")
		flag.PrintDefaults()
		os.Exit(2)
	}
	client := &Client{
		Servers:  []*Server{{*proxy + "/v1", "unused", &Breaker{pause: 5 * time.Second}}},
		Model:    *model,
		GiveUp:   *giveUp,
		MaxPause: 10 * time.Second,
		HTTP:     NewHTTP(*inFlight),
	}
	if *fallback != "" {
		provider := &Server{*fallback, os.Getenv("FALLBACK_KEY"), &Breaker{pause: 5 * time.Second}}
		client.Servers = append(client.Servers, provider)
	}
	if err := work(client, flag.Arg(0), *output, *batch, *inFlight); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func work(client *Client, input, output string, batch, inFlight int) error {
	file, err := os.Open(input)
	if err != nil {
		return err
	}
	defer file.Close()
	journal, err := OpenJournal(output)
	if err != nil {
		return err
	}
	defer journal.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	began := time.Now()
	counts, err := Run(ctx, client, journal, file, batch, inFlight)
	fmt.Printf("%d embedded, %d refused, %d done before, %.0f/s\n", counts.Embedded,
		counts.Refused, counts.Before, float64(counts.Embedded)/time.Since(began).Seconds())
	return err
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
