// SPDX-License-Identifier: GPL-2.0-only

package intake

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// tag is what stands before a subject: [RFC PATCH v2 net-next 3/7].
type tag struct {
	// version is 1 where none is named.
	version int
	// n of m; m is 0 without numbers.
	n, m int
	// reply is true for an answer to a patch.
	reply bool
	// subject is the rest.
	subject string
}

var (
	replyRE    = regexp.MustCompile(`(?i)^\s*((re|aw|fwd?|sv|antw)\s*:)`)
	bracketsRE = regexp.MustCompile(`^\s*\[([^\]]*)\]`)
	numbersRE  = regexp.MustCompile(`(?:^|[\s,])0*(\d{1,4})/0*(\d{1,4})(?:[\s,]|$)`)
	versionRE  = regexp.MustCompile(`(?i)(?:^|[\s,]|patch)v(\d{1,3})(?:[\s,]|$)`)
)

func parseTag(subject string) tag {
	t := tag{version: 1}
	if m := replyRE.FindString(subject); m != "" {
		t.reply = true
		subject = subject[len(m):]
	}
	for {
		m := bracketsRE.FindStringSubmatch(subject)
		if m == nil {
			break
		}
		subject = subject[len(m[0]):]
		if v := versionRE.FindStringSubmatch(m[1]); v != nil {
			t.version, _ = strconv.Atoi(v[1])
		}
		if v := numbersRE.FindStringSubmatch(m[1]); v != nil {
			t.n, _ = strconv.Atoi(v[1])
			t.m, _ = strconv.Atoi(v[2])
		}
	}
	t.subject = strings.TrimSpace(subject)
	return t
}

// cover tells whether it is the letter in front of a series.
func (t tag) cover() bool { return t.m > 0 && t.n == 0 }

// order brings numbered letters into the order of their numbers: the newest
// version of them, without its cover letter, and each number once.
func (t *Taken) order(letters []letter) ([]letter, error) {
	newest := 0
	var versions []string
	for _, l := range letters {
		newest = max(newest, l.tag.version)
		if v := fmt.Sprintf("v%d", l.tag.version); !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	if len(versions) > 1 {
		slices.Sort(versions)
		t.Notes = append(t.Notes, fmt.Sprintf("%s holds %s of the series; v%d is taken, it is the newest",
			t.From, strings.Join(versions, " and "), newest))
	}
	total := 0
	at := map[int]letter{}
	for _, l := range letters {
		if l.tag.version != newest {
			continue
		}
		if total != 0 && l.tag.m != total {
			return nil, fmt.Errorf("%s holds parts of two series, one of %d and one of %d patches (%s); give one of them",
				t.From, total, l.tag.m, l.from)
		}
		total = l.tag.m
		if l.tag.cover() {
			continue
		}
		if l.tag.n > total {
			return nil, fmt.Errorf("%s says that it is patch %d of %d", l.from, l.tag.n, total)
		}
		if first, ok := at[l.tag.n]; ok {
			a, err := first.diff()
			if err != nil {
				return nil, err
			}
			b, err := l.diff()
			if err != nil {
				return nil, err
			}
			if !slices.Equal(a, b) {
				return nil, fmt.Errorf("%s holds patch %d/%d twice, and they differ: %s and %s", t.From, l.tag.n, total, first.from, l.from)
			}
			t.Notes = append(t.Notes, fmt.Sprintf("%s holds patch %d/%d twice, and they are the same: %s and %s",
				t.From, l.tag.n, total, first.from, l.from))
			continue
		}
		at[l.tag.n] = l
	}
	var out []letter
	var missing []string
	for n := 1; n <= total; n++ {
		l, ok := at[n]
		if !ok {
			missing = append(missing, strconv.Itoa(n))
			continue
		}
		out = append(out, l)
	}
	if len(missing) > 0 {
		which := ""
		if newest > 1 {
			which = fmt.Sprintf("v%d in ", newest)
		}
		return nil, fmt.Errorf("%s%s lacks patch %s of %d", which, t.From, strings.Join(missing, ", "), total)
	}
	return out, nil
}
