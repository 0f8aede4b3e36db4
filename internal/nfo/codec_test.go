// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
)

func attrs(t *testing.T, fill func(e *netlink.AttributeEncoder)) []byte {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	fill(e)
	b, err := e.Encode()
	require.NoError(t, err)
	return b
}

func TestDecodeRule(t *testing.T) {
	used := uint64(1500)
	tests := []struct {
		name string
		in   func(e *netlink.AttributeEncoder)
		want Rule
		json string
	}{
		{"nothing", func(*netlink.AttributeEncoder) {}, Rule{},
			`{"table":"","chain":"","handle":0,"state":"software","packets":0,"bytes":0,"policy":"auto"}`},
		{"in hardware", func(e *netlink.AttributeEncoder) {
			e.String(2, "t")
			e.String(3, "c")
			e.Uint64(4, 1<<40)
			e.Uint32(5, 7)
			e.String(6, "eth0")
			e.Uint32(7, 1)
			e.Uint32(9, 32768)
			e.Uint64(10, 5)
			e.Uint64(11, 1<<33)
			e.Uint64(12, used)
			e.Uint32(13, 2)
		}, Rule{Table: "t", Chain: "c", Handle: 1 << 40, Ifindex: 7, Device: "eth0", State: Hardware, Prio: 32768,
			Packets: 5, Bytes: 1 << 33, LastUsed: &used, Policy: Force},
			`{"table":"t","chain":"c","handle":1099511627776,"ifindex":7,"device":"eth0","state":"hardware","prio":32768,` +
				`"packets":5,"bytes":8589934592,"last_used_ms":1500,"policy":"force"}`},
		{"of a kernel to come", func(e *netlink.AttributeEncoder) {
			e.Uint32(7, 9)
			e.String(8, "because")
			e.String(99, "unknown")
		}, Rule{State: 9, Reason: "because"},
			`{"table":"","chain":"","handle":0,"state":"unknown-9","reason":"because","packets":0,"bytes":0,"policy":"auto"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeRule(attrs(t, tt.in))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
			text, err := json.Marshal(got)
			require.NoError(t, err)
			require.JSONEq(t, tt.json, string(text))
		})
	}
}

func TestDecodeRefusesWhatIsBroken(t *testing.T) {
	for name, in := range map[string][]byte{
		"truncated attribute":  {20, 0, 2, 0, 't'},
		"handle of four bytes": attrs(t, func(e *netlink.AttributeEncoder) { e.Uint32(4, 1) }),
		"length of nothing":    {1, 0, 0, 0},
	} {
		_, err := decodeRule(in)
		require.Error(t, err, name)
	}
}

func TestPolicyGoesThereAndBack(t *testing.T) {
	for _, p := range []PolicyEntry{
		{Table: "t", Chain: "c", Policy: Never},
		{Table: "t", Chain: strings.Repeat("x", 255), Handle: 1 << 63, Policy: Force},
	} {
		b, err := encodePolicy(p)
		require.NoError(t, err)
		got, err := decodePolicy(b)
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
}

func TestFilterSaysWhatIsAskedFor(t *testing.T) {
	b, err := encodeFilter(Filter{})
	require.NoError(t, err)
	require.Empty(t, b)
	b, err = encodeFilter(Filter{Table: "t", Chain: "c", Ifindex: 3})
	require.NoError(t, err)
	got, err := decodeRule(b)
	require.NoError(t, err)
	require.Equal(t, Rule{Table: "t", Chain: "c", Ifindex: 3}, got)
}

func TestDecodeFlowtable(t *testing.T) {
	got, err := decodeFlowtable(attrs(t, func(e *netlink.AttributeEncoder) {
		e.Uint32(2, 1)
		e.String(3, "t")
		e.String(4, "ft")
		e.Uint64(5, 2)
		e.Uint32(6, 2)
		e.String(7, "full")
		e.Uint32(8, 3)
		e.Uint32(9, 4)
		e.Uint64(10, 5)
		e.Uint64(11, 6)
		e.Uint32(13, 7)
		e.Uint32(13, 8)
	}))
	require.NoError(t, err)
	require.Equal(t, Flowtable{Family: 1, Table: "t", Name: "ft", Handle: 2, State: Failed, Reason: "full",
		FlowsHW: 3, FlowsSW: 4, Packets: 5, Bytes: 6, Ifindexes: []uint32{7, 8}}, got)
	require.Equal(t, "lo", deviceName(1))
	require.Equal(t, "#2147483647", deviceName(1<<31-1))
}

func TestEvents(t *testing.T) {
	status := attrs(t, func(e *netlink.AttributeEncoder) {
		e.Uint32(1, 2)
		e.String(2, "rule 7 of chain x: set lookup cannot be offloaded [eth0]")
	})
	policy, err := encodePolicy(PolicyEntry{Table: "t", Chain: "c", Policy: Never})
	require.NoError(t, err)
	tests := []struct {
		cmd  uint8
		data []byte
		want string
	}{
		{5, attrs(t, func(e *netlink.AttributeEncoder) { e.String(2, "t"); e.String(3, "c"); e.Uint64(4, 3) }),
			"rule t c 3 - software: -"},
		{6, attrs(t, func(e *netlink.AttributeEncoder) { e.String(3, "t"); e.String(4, "ft"); e.Uint32(6, 1) }),
			"flowtable t ft hardware: -"},
		{7, policy, "policy t c - never"},
		{8, attrs(t, func(e *netlink.AttributeEncoder) { e.Uint32(1, 1) }), "mode auto: -"},
		{10, attrs(t, func(e *netlink.AttributeEncoder) {
			e.String(2, "t")
			e.String(3, "c")
			e.Uint64(4, 3)
			e.String(6, "eth0")
			e.Uint64(10, 8)
		}), "rule t c 3 eth0 is gone, with 8 packets in hardware"},
		{11, attrs(t, func(e *netlink.AttributeEncoder) { e.String(3, "t"); e.String(4, "ft") }), "flowtable t ft is gone"},
		{9, status, "refused strict: rule 7 of chain x: set lookup cannot be offloaded [eth0]"},
	}
	for _, tt := range tests {
		e, err := decodeEvent(genetlink.Message{Header: genetlink.Header{Command: tt.cmd}, Data: tt.data})
		require.NoError(t, err)
		require.Equal(t, tt.want, e.String())
	}
	_, err = decodeEvent(genetlink.Message{Header: genetlink.Header{Command: 77}})
	require.Error(t, err)
}

func TestParsePolicy(t *testing.T) {
	for _, p := range []Policy{Auto, Never, Force} {
		got, err := ParsePolicy(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	_, err := ParsePolicy("Never")
	require.Error(t, err)
	require.Error(t, json.Unmarshal([]byte(`"sometimes"`), new(Policy)))
}

func TestChanges(t *testing.T) {
	a := PolicyEntry{Table: "t", Chain: "a", Policy: Never}
	b := PolicyEntry{Table: "t", Chain: "b", Policy: Never}
	off := func(p PolicyEntry) PolicyEntry { p.Policy = Auto; return p }
	force := func(p PolicyEntry) PolicyEntry { p.Policy = Force; return p }
	tests := []struct {
		name             string
		have, want, todo []PolicyEntry
	}{
		{"nothing", nil, nil, nil},
		{"the same", []PolicyEntry{a, b}, []PolicyEntry{b, a}, nil},
		{"room first", []PolicyEntry{a}, []PolicyEntry{b}, []PolicyEntry{off(a), b}},
		{"another value", []PolicyEntry{a}, []PolicyEntry{force(a)}, []PolicyEntry{force(a)}},
		{"auto means gone", []PolicyEntry{a}, []PolicyEntry{off(a)}, []PolicyEntry{off(a)}},
		{"the last one counts", nil, []PolicyEntry{a, force(a)}, []PolicyEntry{force(a)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.todo, changes(tt.have, tt.want)) })
	}
}

func TestGarbageIsTheSameForTheSameSeed(t *testing.T) {
	one, two := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(1, 1))
	other := rand.New(rand.NewPCG(2, 2))
	same := true
	for i := range uint32(50) {
		m := garbage(one, 33, i)
		require.Equal(t, m, garbage(two, 33, i))
		same = same && string(m) == string(garbage(other, 33, i))
	}
	require.False(t, same)
}

func TestTextHasOneLinePerRule(t *testing.T) {
	var out strings.Builder
	used := uint64(90500)
	require.NoError(t, WriteRules(&out, []Rule{
		{Table: "t", Chain: "c", Handle: 2, Device: "eth0", State: Hardware, Prio: 32768, Packets: 5, LastUsed: &used},
		{Table: "t", Chain: "c", Handle: 3, State: Software, Reason: "the table is dormant"},
	}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 3)
	require.Regexp(t, `^eth0 +t +c +2 +hardware +32768 +5 +0 +1m30.5s ago +auto +-$`, lines[1])
	require.Regexp(t, `^- +t +c +3 +software +- +0 +0 +never +auto +the table is dormant$`, lines[2])
}
