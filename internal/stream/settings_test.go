package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kingbus/internal/cluster"
	"kingbus/internal/vfs"
)

func value(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// TestSettings is a table of changes to one state.
func TestSettings(t *testing.T) {
	s := &state{}
	index := uint64(10)
	for i, tc := range []struct {
		command settingsCommand
		refused string
		values  string // afterwards, as JSON
	}{
		{settingsCommand{0, 1, map[string]json.RawMessage{"a": value(1), "b": value("x")}}, "", `{"a":1,"b":"x"}`},
		{settingsCommand{0, 2, map[string]json.RawMessage{"a": value(2)}}, "somebody else", `{"a":1,"b":"x"}`},
		{settingsCommand{0, 1, map[string]json.RawMessage{"a": value(1), "b": value("x")}}, "", `{"a":1,"b":"x"}`}, // once more
		{settingsCommand{11, 3, map[string]json.RawMessage{"a": json.RawMessage("null"), "c": value([]int{1})}}, "", `{"b":"x","c":[1]}`},
		{settingsCommand{14, 4, map[string]json.RawMessage{"none": nil}}, "", `{"b":"x","c":[1]}`},
		{settingsCommand{15, 5, map[string]json.RawMessage{"": value(1)}}, "0 bytes", `{"b":"x","c":[1]}`},
		{settingsCommand{15, 6, map[string]json.RawMessage{strings.Repeat("k", 513): value(1)}}, "513 bytes", `{"b":"x","c":[1]}`},
		{settingsCommand{15, 7, map[string]json.RawMessage{"b": value(strings.Repeat("v", 4<<20)), "c": nil}}, "more than", `{"b":"x","c":[1]}`},
		{settingsCommand{15, 8, map[string]json.RawMessage{"b": nil, "c": nil}}, "", `{}`},
	} {
		index++
		p, err := encodeCommand(kindSettings, 7, tc.command)
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.apply(index, p)
		if err != nil {
			t.Fatal(err)
		}
		if (e.err == nil) != (tc.refused == "") || e.err != nil && !strings.Contains(e.err.Error(), tc.refused) {
			t.Errorf("change %d: %v, want %q", i, e.err, tc.refused)
		}
		if e.err == nil && e.changed != s.settings.Revision {
			t.Errorf("change %d: changed to %d, the revision is %d", i, e.changed, s.settings.Revision)
		}
		if got := string(value(s.settings.Values)); got != tc.values {
			t.Errorf("change %d: %s, want %s", i, got, tc.values)
		}
		b, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeState(b)
		if err != nil || !reflect.DeepEqual(back.settings, s.settings) || back.change != s.change {
			t.Errorf("change %d: from a checkpoint %+v, %v", i, back, err)
		}
	}
}

// TestChangeSettings: on any node, several at once, over changes of the leader, restarts and
// with a node that comes later.
func TestChangeSettings(t *testing.T) {
	var hosts addressBook
	dirs := map[string]string{}
	open := func(name string, format uint16) *Stream {
		if dirs[name] == "" {
			dirs[name] = t.TempDir()
		}
		cfg := goldenConfig(dirs[name])
		cfg.Peering = hosts.peering(t, name)
		cfg.Peering.Join = name != "n1"
		cfg.Peering.MinFormat, cfg.Peering.MaxFormat = 1, format
		return openGolden(t, cfg)
	}
	one := open("n1", 1)
	if _, err := one.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := one.ChangeSettings(t.Context(), 0, map[string]json.RawMessage{"k": value(1)}); !errors.Is(err, ErrOldFormat) {
		t.Fatalf("in a group of format 1: %v", err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	one = open("n1", cluster.Format)
	nodes := []*Stream{one, open("n2", cluster.Format), open("n3", cluster.Format)}
	if _, err := one.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, s := range nodes[1:] {
		name := fmt.Sprint("n", i+2)
		if err := one.Cluster().Add(t.Context(), name, hosts.address(name)); err != nil {
			t.Fatal(err)
		}
		await(t, name+" votes", func() bool { return one.Cluster().Promote(t.Context(), name) == nil && s.Status().Node.Voter })
	}
	await(t, "the format is raised", func() bool { return one.Status().Node.Format == settingsFormat })

	// Each node counts up by itself and a number of all.
	const times = 15
	var group sync.WaitGroup
	for i, s := range nodes {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; n < times; {
				now := s.Settings()
				var sum int
				_ = json.Unmarshal(now.Values["sum"], &sum)
				err := s.ChangeSettings(t.Context(), now.Revision, map[string]json.RawMessage{"sum": value(sum + 1), fmt.Sprint("of ", i): value(n + 1)})
				switch {
				case err == nil:
					if n++; string(s.Settings().Values[fmt.Sprint("of ", i)]) != fmt.Sprint(n) {
						t.Errorf("node %d has not got its own change", i)
					}
				case !errors.Is(err, ErrSettingsChanged):
					t.Errorf("node %d: %v", i, err)
					return
				default: // it is behind, or was not the first
					if _, err := s.AwaitSettings(t.Context(), now.Revision); err != nil {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	for range 5 { // leadership goes around meanwhile
		for i, s := range nodes {
			if s.Cluster().Leading() != nil {
				_ = s.Cluster().Transfer(t.Context(), fmt.Sprint("n", (i+1)%3+1))
			}
		}
	}
	group.Wait()
	want := fmt.Sprintf(`{"of 0":%d,"of 1":%d,"of 2":%d,"sum":%d}`, times, times, times, 3*times)
	same := func(s *Stream) bool { return string(value(s.Settings().Values)) == want }
	for _, s := range nodes {
		await(t, want, func() bool { return same(s) })
	}

	four := open("n4", cluster.Format)
	if err := one.Cluster().Add(t.Context(), "n4", hosts.address("n4")); err != nil {
		t.Fatal(err)
	}
	await(t, want, func() bool { return same(four) })
	if err := four.Close(); err != nil {
		t.Fatal(err)
	}
	four = open("n4", cluster.Format)
	await(t, want, func() bool { return same(four) })

	// Without a majority nothing is changed.
	for _, s := range nodes {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := four.ChangeSettings(ctx, four.Settings().Revision, map[string]json.RawMessage{"sum": nil}); !errors.Is(err, cluster.ErrNoLeader) && !errors.Is(err, ErrUncertain) || !same(four) {
		t.Errorf("without a majority: %v", err)
	}
}

// TestSettingsBySnapshot: a node that gets its state by a snapshot hears of the settings in it,
// and so does who waits for other ones.
func TestSettingsBySnapshot(t *testing.T) {
	var hosts addressBook
	r := newRig(t, vfs.NewMem(1))
	_ = r.s.Close()
	r.cfg.FS = vfs.NewMem(2)
	r.cfg.Peering = hosts.peering(t, "n1")
	r.cfg.Peering.Join = false
	r.open()
	r.start()
	if err := r.s.ChangeSettings(t.Context(), 0, map[string]json.RawMessage{"k": value(1)}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		r.rotate()
		r.transactions(400, 5000)
		r.append(r.w.Rotate(nil, fmt.Sprintf("binlog.%06d", r.n+1)))
	}
	r.rotate()
	r.wait()
	want := r.s.Settings().Revision
	var told atomic.Uint64
	cfg := Config{FS: vfs.NewMem(3), Dir: "data", SegmentBytes: 1 << 20, Peering: hosts.peering(t, "n2"), Settled: func(s Settings) { told.Store(s.Revision) }}
	two := openGolden(t, cfg)
	awaited := make(chan uint64, 1)
	go func() {
		s, _ := two.AwaitSettings(t.Context(), 0)
		awaited <- s.Revision
	}()
	if err := r.s.Cluster().Add(t.Context(), "n2", hosts.address("n2")); err != nil {
		t.Fatal(err)
	}
	await(t, "the settings", func() bool { return told.Load() == want })
	if got := <-awaited; got != want {
		t.Errorf("who waits was told of revision %d, want %d", got, want)
	}
}
