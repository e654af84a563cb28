package follow

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

// keeper is the settings of the cluster, in memory.
type keeper struct{ now stream.Settings }

func (k *keeper) Settings() stream.Settings { return k.now }

func (k *keeper) AwaitSettings(context.Context, uint64) (stream.Settings, error) { return k.now, nil }

func (k *keeper) ChangeSettings(_ context.Context, revision uint64, values map[string]json.RawMessage) error {
	if revision != k.now.Revision {
		return stream.ErrSettingsChanged
	}
	k.now = stream.Settings{Revision: revision + 1, Values: values}
	return nil
}

func TestStore(t *testing.T) {
	k := &keeper{}
	s := NewStore(k, false, func() bool { return false })
	if now, at, err := s.Setting(); now != (Setting{}) || at != 0 || err != nil {
		t.Errorf("%+v at %d, %v", now, at, err)
	}
	want := Setting{Host: "h", Port: 3307, User: "u", Password: "p", Heartbeat: time.Second, SSL: "1", Verify: "0", CA: "/ca", PublicKey: true, Start: "b.1"}
	if err := s.decide(t.Context(), func(Setting) (Setting, error) { return want, nil }); err != nil {
		t.Fatal(err)
	}
	if now, at, err := s.Setting(); now != want || at != 1 || err != nil {
		t.Errorf("%+v at %d, %v", now, at, err)
	}
	// The same once more, an error, and nonsense change nothing.
	if err := s.decide(t.Context(), func(s Setting) (Setting, error) { return s, nil }); err != nil || k.now.Revision != 1 {
		t.Errorf("revision %d, %v", k.now.Revision, err)
	}
	no := errors.New("no")
	if err := s.decide(t.Context(), func(s Setting) (Setting, error) { return Setting{Host: "x"}, no }); err != no || k.now.Revision != 1 {
		t.Errorf("revision %d, %v", k.now.Revision, err)
	}
	for _, bad := range []Setting{{SSL: "maybe"}, {Password: "p\xe4"}, {Verify: "2"}, {Host: strings.Repeat("h", 256)}, {Heartbeat: time.Microsecond}, {Heartbeat: 2 * time.Hour}, {Password: strings.Repeat("p", 257)}, {CA: strings.Repeat("/", 2000)}} {
		if err := s.decide(t.Context(), func(Setting) (Setting, error) { return bad, nil }); err == nil || k.now.Revision != 1 {
			t.Errorf("%+v was taken", bad)
		}
	}
	// Nothing to say is nothing kept.
	if err := s.decide(t.Context(), func(Setting) (Setting, error) { return Setting{}, nil }); err != nil || k.now.Values[Key] != nil {
		t.Errorf("%s, %v", k.now.Values[Key], err)
	}
	k.now.Values = map[string]json.RawMessage{Key: []byte(`{"host":"h","only_on_mondays":true}`)}
	if _, _, err := s.Setting(); err == nil {
		t.Error("what an older version does not know was passed over")
	}
}

// TestTLSMode: what an administrator says lowers the mode of a node only where it says so.
func TestTLSMode(t *testing.T) {
	const preferred, disabled, required, ca, identity = wire.TLSPreferred, wire.TLSDisabled, wire.TLSRequired, wire.TLSVerifyCA, wire.TLSVerifyIdentity
	for _, tc := range []struct {
		s    Setting
		want [5]wire.TLSMode // on nodes with each of the modes
	}{
		{Setting{}, [5]wire.TLSMode{preferred, disabled, required, ca, identity}},
		{Setting{Host: "h", CA: "f", Verify: "1"}, [5]wire.TLSMode{preferred, disabled, identity, identity, identity}},
		{Setting{CA: "f"}, [5]wire.TLSMode{preferred, disabled, ca, ca, identity}},
		{Setting{SSL: "1"}, [5]wire.TLSMode{required, required, required, ca, identity}},
		{Setting{SSL: "1", CA: "f"}, [5]wire.TLSMode{ca, ca, ca, ca, identity}},
		{Setting{SSL: "1", Verify: "1"}, [5]wire.TLSMode{identity, identity, identity, identity, identity}},
		{Setting{SSL: "1", Verify: "0"}, [5]wire.TLSMode{required, required, required, ca, ca}},
		{Setting{SSL: "0", Verify: "1", CA: "f"}, [5]wire.TLSMode{disabled, disabled, disabled, disabled, disabled}},
	} {
		for i, node := range []wire.TLSMode{preferred, disabled, required, ca, identity} {
			if got := tc.s.TLSMode(node, true); got != tc.want[i] {
				t.Errorf("%+v on a node with %s: %s, want %s", tc.s, node, got, tc.want[i])
			}
		}
	}
}

func TestTLSModeWithoutCA(t *testing.T) {
	if got := (Setting{Verify: "0"}).TLSMode(wire.TLSVerifyIdentity, false); got != wire.TLSRequired {
		t.Errorf("%s, and there is nothing to verify with", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"stopped":true,"host":"h","port":3306,"heartbeat":1000000000,"ssl":"1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Decode(s.Encode()); err != nil || again != s {
			t.Errorf("%s: %+v, %+v, %v", b, s, again, err)
		}
	})
}
