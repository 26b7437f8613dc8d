package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
)

// A Done row is one line of the output.
type Done struct {
	ID        string    `json:"id"`
	Embedding []float32 `json:"embedding,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// A Journal is the output itself: what it has is not embedded again. Its lines are on the disk
// before they count, and half a line that a crash left is cut off.
type Journal struct {
	Has  map[string]bool
	file *os.File
}

// OpenJournal opens the output at a path, or begins it.
func OpenJournal(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	journal := &Journal{Has: map[string]bool{}, file: file}
	reader := bufio.NewReaderSize(file, 1<<20)
	var good int64
	for {
		line, err := reader.ReadBytes('\n')
		var row Done
		if err == io.EOF || err == nil && json.Unmarshal(line, &row) != nil {
			break
		}
		if err != nil {
			return nil, err
		}
		journal.Has[row.ID] = true
		good += int64(len(line))
	}
	if err := file.Truncate(good); err != nil {
		return nil, err
	}
	_, err = file.Seek(good, io.SeekStart)
	return journal, err
}

// has returns a copy, for a reader while rows are added.
func (j *Journal) has() map[string]bool {
	ids := make(map[string]bool, len(j.Has))
	for id := range j.Has {
		ids[id] = true
	}
	return ids
}

// Add writes rows; they are on the disk when it returns.
func (j *Journal) Add(rows []Done) error {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, row := range rows {
		if err := encoder.Encode(row); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(lines.Bytes()); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	for _, row := range rows {
		j.Has[row.ID] = true
	}
	return nil
}

// Close closes the output.
func (j *Journal) Close() error { return j.file.Close() }
