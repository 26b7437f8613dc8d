package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net/http"
	"strconv"
	"time"
)

// A Server has OpenAI's embeddings API: a cacheproxy, or a provider.
type Server struct {
	URL, Key string // URL up to and including /v1
	Breaker  *Breaker
}

// A Client asks the first of its servers whose breaker allows it. All must serve the same model.
type Client struct {
	Servers  []*Server
	Model    string
	GiveUp   time.Duration // how long to try one request
	MaxPause time.Duration // between two tries, unless the server says longer
	HTTP     *http.Client
}

// NewHTTP returns a client that keeps a connection open for each of the requests in flight.
func NewHTTP(inFlight int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = inFlight
	transport.MaxConnsPerHost = inFlight
	return &http.Client{Transport: transport, Timeout: 90 * time.Second}
}

// A Refused request would be refused again: retrying does not help.
type Refused struct{ Reason string }

func (r *Refused) Error() string { return r.Reason }

// A busy server says when to come again.
type busy struct {
	after  time.Duration
	reason string
}

func (b *busy) Error() string { return b.reason }

// Embed returns a vector for each text. It retries with pauses that double, with jitter, until
// GiveUp has passed. Its error is a *Refused if the request is at fault.
func (c *Client) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	ctx, cancel := context.WithTimeout(ctx, c.GiveUp)
	defer cancel()
	last := errors.New("every circuit breaker is open")
	for try := 0; ; try++ {
		pause := backoff(try, c.MaxPause)
		for _, server := range c.Servers {
			if !server.Breaker.Allows() {
				continue
			}
			vectors, err := c.ask(ctx, server, texts)
			var refused *Refused
			var later *busy
			isBusy := errors.As(err, &later)
			// A busy server is not a sick one.
			server.Breaker.Ended(err != nil && !errors.As(err, &refused) && !isBusy)
			if err == nil || refused != nil {
				return vectors, err
			}
			last = err
			if isBusy {
				if later.after > pause {
					pause = later.after + backoff(0, c.MaxPause)
				}
				break // flooding the provider instead helps nobody
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("gave up: %w", last)
		}
	}
}

// backoff returns a random pause of up to 100 ms, doubled with each try: "full jitter".
func backoff(try int, most time.Duration) time.Duration {
	if try > 16 {
		try = 16
	}
	limit := 100 * time.Millisecond << try
	if limit > most {
		limit = most
	}
	return time.Duration(rand.Int63n(int64(limit))) + time.Millisecond
}

func (c *Client) ask(ctx context.Context, server *Server, texts []string) ([][]float32, error) {
	body, err := json.Marshal(map[string]any{
		"model": c.Model, "input": texts, "encoding_format": "base64",
	})
	if err != nil {
		return nil, err
	}
	url := server.URL + "/embeddings"
	request, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+server.Key)
	response, err := c.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body) // to its end, so that the connection is kept
	if err != nil {
		return nil, err
	}
	switch status := response.StatusCode; {
	case status == 200:
		return vectorsOf(answer, len(texts))
	case status == 429 || status == 503 && response.Header.Get("Retry-After") != "":
		return nil, &busy{retryAfter(response.Header), response.Status}
	case status == 408 || status >= 500:
		return nil, errors.New(response.Status)
	default:
		return nil, &Refused{messageOf(answer, response.Status)}
	}
}

// retryAfter reads seconds or a date.
func retryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		return time.Duration(seconds * float64(time.Second))
	}
	if date, err := http.ParseTime(value); err == nil {
		return time.Until(date)
	}
	return 0
}

func messageOf(answer []byte, status string) string {
	var got struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(answer, &got) != nil || got.Error.Message == "" {
		return status
	}
	return got.Error.Message
}

func vectorsOf(answer []byte, count int) ([][]float32, error) {
	var got struct {
		Data []struct {
			Index     int    `json:"index"`
			Embedding string `json:"embedding"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, err
	}
	if len(got.Data) != count {
		return nil, fmt.Errorf("%d vectors for %d texts", len(got.Data), count)
	}
	vectors := make([][]float32, count)
	for _, item := range got.Data {
		raw, err := base64.StdEncoding.DecodeString(item.Embedding)
		if err != nil {
			return nil, err
		}
		if item.Index < 0 || item.Index >= count || vectors[item.Index] != nil {
			return nil, fmt.Errorf("vector %d of %d", item.Index, count)
		}
		vector := make([]float32, len(raw)/4)
		for i := range vector {
			vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		vectors[item.Index] = vector
	}
	return vectors, nil
}
