// SPDX-License-Identifier: GPL-2.0-only

package store

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// timingFile keeps the last duration of everything that was timed. It is for
// people who wait, so losing it costs nothing and its errors are not reported.
const timingFile = "timings.json"

// Expected is how many seconds the named work took last time, 0 when unknown.
func (s *Store) Expected(name string) float64 { return s.timings()[name] }

// Took remembers how many seconds the named work took.
func (s *Store) Took(name string, seconds float64) {
	s.timing.Lock()
	defer s.timing.Unlock()
	all := s.timings()
	all[name] = seconds
	raw, err := json.Marshal(all)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, tmpDir), "timings-")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, werr := f.Write(raw)
	if f.Close() == nil && werr == nil {
		_ = os.Rename(f.Name(), filepath.Join(s.dir, timingFile))
	}
}

func (s *Store) timings() map[string]float64 {
	all := map[string]float64{}
	raw, err := os.ReadFile(filepath.Join(s.dir, timingFile))
	if err != nil || json.Unmarshal(raw, &all) != nil {
		return map[string]float64{}
	}
	return all
}
