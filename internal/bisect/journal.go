// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// Schema names the format of bisect.json.
const Schema = "nftvm-bisect-1"

// Files in a bisection's directory.
const (
	JSONFile = "bisect.json"
	// LogFile is for "git bisect replay".
	LogFile = "bisect.log"
)

// Asked is one part of the question that a bisection answers.
type Asked struct {
	What  string `json:"what"`
	Value string `json:"value"`
}

// Entry is a point with what is known of it.
type Entry struct {
	Key    string `json:"key"`
	Title  string `json:"title"`
	Result Result `json:"result"`
}

// Journal holds every verdict, on the disk as soon as there is one. Going on
// from it asks nothing twice.
type Journal struct {
	Schema   string   `json:"schema"`
	Question []Asked  `json:"question"`
	Points   []Entry  `json:"points"`
	Found    *Finding `json:"found,omitempty"`

	dir string
}

// OpenJournal begins a journal in dir, or goes on with the one that is there.
// Verdicts on another question are none on this one.
func OpenJournal(dir string, question []Asked, resume bool) (*Journal, error) {
	j := &Journal{Schema: Schema, Question: question, Points: []Entry{}, dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if !resume {
		return j, j.write()
	}
	path := filepath.Join(dir, JSONFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nothing to resume: there is no %s", path)
	}
	if err != nil {
		return nil, err
	}
	old := &Journal{}
	if err := json.Unmarshal(raw, old); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if old.Schema != Schema {
		return nil, fmt.Errorf("%s is of another nftvm (%q, not %q); begin anew without --resume", path, old.Schema, Schema)
	}
	for i, q := range question {
		was := Asked{What: q.What}
		if i < len(old.Question) {
			was = old.Question[i]
		}
		if was != q {
			return nil, fmt.Errorf("%s answers another question: its %s is %q, not %q; begin anew without --resume, or with another --out",
				path, q.What, was.Value, q.Value)
		}
	}
	j.Points = old.Points
	return j, nil
}

// Get is what is known of a point.
func (j *Journal) Get(key string) Result {
	if i := j.index(key); i >= 0 {
		return j.Points[i].Result
	}
	return Result{}
}

func (j *Journal) index(key string) int {
	return slices.IndexFunc(j.Points, func(e Entry) bool { return e.Key == key })
}

// Put keeps what is known of a point.
func (j *Journal) Put(p Point, r Result) error {
	if i := j.index(p.Key); i >= 0 {
		j.Points[i].Result = r
	} else {
		j.Points = append(j.Points, Entry{p.Key, p.Title, r})
	}
	return j.write()
}

// sameImage is a point with the image, and a verdict.
func (j *Journal) sameImage(key, image string) *Entry {
	for i := range j.Points {
		e := &j.Points[i]
		if e.Key != key && e.Result.Image == image && e.Result.Verdict != "" && e.Result.Same == "" {
			return e
		}
	}
	return nil
}

// Goods is how many points were run and found good.
func (j *Journal) Goods() (n int) {
	for _, e := range j.Points {
		if e.Result.Verdict == Good && e.Result.Same == "" {
			n++
		}
	}
	return n
}

// Finish keeps the answer.
func (j *Journal) Finish(f *Finding) error {
	j.Found = f
	return j.write()
}

func (j *Journal) write() error {
	raw, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	return report.WriteFile(filepath.Join(j.dir, JSONFile), append(raw, '\n'))
}
