package binlog

import (
	"bytes"
	"testing"

	"kingbus/internal/gtid"
)

// seedEvents gives a fuzz target events of real servers, each type from each
// server once, with the checksum algorithm.
func seedEvents(f *testing.F, types ...EventType) {
	seen := map[string]bool{}
	for _, g := range goldens(f) {
		var tr Tracker
		for rest := g.file[MagicSize:]; len(rest) > 0; {
			h, err := ParseHeader(rest)
			if err != nil {
				f.Fatal(err)
			}
			ev := rest[:h.Length]
			rest = rest[h.Length:]
			if _, err := tr.Next(ev); err != nil {
				f.Fatal(err)
			}
			c, _ := tr.Checksum()
			key := g.name[:2] + h.Type.String()
			for _, t := range types {
				if t == h.Type && !seen[key] && len(ev) < 1000 {
					seen[key] = true
					f.Add(ev, c == ChecksumCRC32)
				}
			}
		}
	}
}

func algorithm(crc bool) Checksum {
	if crc {
		return ChecksumCRC32
	}
	return ChecksumNone
}

// FuzzDecoders feeds every decoder with every input: nothing may panic, and
// what is accepted must be encoded to what decodes to the same.
func FuzzDecoders(f *testing.F) {
	seedEvents(f, TypeFormatDescription, TypeRotate, TypePreviousGTIDs, TypeGTID, TypeGTIDTagged, TypeAnonymousGTID,
		TypeQuery, TypeXID, TypeXAPrepare, TypeTransactionPayload, TypeMariaGTID, TypeMariaGTIDList,
		TypeMariaQueryCompressed, TypeIntvar, TypeRand, TypeUserVar, TypeTableMap, TypeWriteRows, TypeRowsQuery, TypeExecuteLoadQuery)
	f.Add(AppendHeartbeatV2(nil, 1, Heartbeat{"binlog.000001", 1 << 40}, ChecksumCRC32), true)
	v1, _ := AppendHeartbeat(nil, 1, Heartbeat{"binlog.000001", 1 << 30}, ChecksumNone)
	f.Add(v1, false)
	f.Fuzz(func(t *testing.T, ev []byte, crc bool) {
		c := algorithm(crc)
		h, err := ParseHeader(ev)
		if err != nil {
			return
		}
		var put [HeaderSize]byte
		h.Put(put[:])
		if !bytes.Equal(put[:], ev[:HeaderSize]) {
			t.Fatalf("header %x became %x", ev[:HeaderSize], put)
		}
		whole := int(h.Length) == len(ev)
		accepted := func(err error) bool {
			if err == nil && !whole {
				t.Fatalf("an event of %d bytes that says %d was accepted", len(ev), h.Length)
			}
			return err == nil
		}
		if fd, err := ParseFormatDescription(ev); accepted(err) {
			again, err := ParseFormatDescription(AppendFormatDescription(nil, h, fd))
			if err != nil || again.ServerVersion != fd.ServerVersion || !bytes.Equal(again.HeaderLengths, fd.HeaderLengths) ||
				again.Created != fd.Created || again.Checksum != fd.Checksum || again.HasChecksum != fd.HasChecksum {
				t.Fatalf("%+v came back as %+v, %v", fd, again, err)
			}
		}
		if r, err := ParseRotate(ev, c); accepted(err) {
			if again, err := ParseRotate(AppendRotate(nil, h, r, c), c); err != nil || again != r {
				t.Fatalf("%+v came back as %+v, %v", r, again, err)
			}
			if ValidName(r.Name) == nil {
				if next, err := NextName(r.Name); err == nil && ValidName(next) != nil && len(next) <= MaxName {
					t.Fatalf("after %q comes %q", r.Name, next)
				}
			}
		}
		if hb, err := ParseHeartbeat(ev, c); accepted(err) {
			if again, err := ParseHeartbeat(AppendHeartbeatV2(nil, 1, hb, c), c); err != nil || again != hb {
				t.Fatalf("%+v came back as %+v, %v", hb, again, err)
			}
		}
		if set, err := ParsePreviousGTIDs(ev, c); accepted(err) {
			if again, err := ParsePreviousGTIDs(AppendPreviousGTIDs(nil, h, set, true, c), c); err != nil || !again.Equal(set) {
				t.Fatalf("%v came back as %v, %v", set, again, err)
			}
		}
		if g, err := ParseGTID(ev, c); accepted(err) && g.GTID.Valid() == (h.Type == TypeAnonymousGTID) {
			t.Fatalf("%s with %v", h.Type, g.GTID)
		}
		if q, err := ParseQuery(ev, c); err == nil && q.TextLength < len(q.Text) {
			t.Fatalf("text of %d bytes, %d of them given", q.TextLength, len(q.Text))
		}
		if p, err := ParsePayloadHeader(ev, c); err == nil && uint64(p.Offset)+p.Size > uint64(h.Length) {
			t.Fatalf("%+v beyond an event of %d bytes", p, h.Length)
		}
		if len(ev) >= MaxWhole || whole {
			Info(ev, c)
		}
		if events, err := PayloadEvents(ev, c); accepted(err) {
			for _, in := range events {
				Info(in[:min(len(in), MaxWhole)], ChecksumNone)
			}
		}
		_, err = ParseXID(ev, c)
		accepted(err)
		_, err = ParseXAPrepare(ev, c)
		accepted(err)
		_, err = ParseIncident(ev, c)
		accepted(err)
	})
}

// FuzzHash compares the checksum in pieces with that of the whole.
func FuzzHash(f *testing.F) {
	seedEvents(f, TypeFormatDescription, TypeXID)
	f.Fuzz(func(t *testing.T, ev []byte, _ bool) {
		want := VerifyChecksum(ev)
		for cut := range min(len(ev), 40) {
			var h Hash
			h.Reset(uint32(len(ev)))
			h.Write(ev[:cut])
			h.Write(ev[cut:])
			if h.Valid() != want {
				t.Fatalf("cut at %d: %v, want %v", cut, h.Valid(), want)
			}
			h.Write([]byte{0})
			if h.Valid() {
				t.Fatal("valid with a byte too many")
			}
		}
		UpdateChecksum(ev)
		if len(ev) >= HeaderSize+crcSize && !VerifyChecksum(ev) {
			t.Fatal("not valid after the update")
		}
	})
}

// FuzzTracker feeds a whole file to a tracker. Its effects must be coherent
// whatever comes, and the same for one that goes through checkpoints.
func FuzzTracker(f *testing.F) {
	// A format description and one transaction each, since the fuzzer does
	// little with large inputs.
	shapes := map[string]bool{}
	for _, g := range goldens(f) {
		var tr Tracker
		var format, events []byte
		shape := ""
		for rest := g.file[MagicSize:]; len(rest) > 0; {
			h, _ := ParseHeader(rest)
			ev := rest[:h.Length]
			rest = rest[h.Length:]
			if h.Type == TypeFormatDescription {
				format = ev
			}
			e, err := tr.Next(ev)
			if err != nil {
				f.Fatal(err)
			}
			shape += h.Type.String()
			if events = append(events, ev...); !e.Boundary {
				continue
			}
			if !shapes[shape] && len(events) < 1500 {
				f.Add(append(bytes.Clone(format), events...))
			}
			shapes[shape] = true
			shape, events = "", nil
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		var tr Tracker
		var length uint64
		for len(file) > 0 {
			h, err := ParseHeader(file)
			if err != nil {
				if _, err := tr.Next(file); err == nil {
					t.Fatalf("%x was accepted", file)
				}
				return
			}
			ev := file[:min(len(file), int(h.Length))]
			file = file[len(ev):]
			before := tr
			e, err := tr.Next(ev)
			if err != nil {
				if tr != before {
					t.Fatalf("an error changed %+v to %+v", before, tr)
				}
				tr.Abort()
				length = 0
				continue
			}
			if len(ev) < min(int(h.Length), MaxWhole) {
				t.Fatalf("%d bytes of %d were accepted", len(ev), h.Length)
			}
			wire := h.Type.IsHeartbeat() || h.Artificial()
			if e.Began && !wire {
				length = 0
			}
			if !wire {
				length += uint64(h.Length)
			}
			if e.Boundary == tr.InTransaction() || e.Ended && (!e.Boundary || e.Length != length) || !e.Ended && (e.Length != 0 || e.GTID != gtid.GTID{}) ||
				e.Began && before.InTransaction() || !tr.InTransaction() && tr.GTID() != (gtid.GTID{}) {
				t.Fatalf("%+v, length %d, of %s between %+v and %+v", e, length, h.Type, before, tr)
			}
			var back Tracker
			if rest, err := back.Decode(tr.AppendBinary(nil)); err != nil || len(rest) != 0 {
				t.Fatalf("state %+v: %v", tr, err)
			}
			if !bytes.Equal(back.AppendBinary(nil), tr.AppendBinary(nil)) {
				t.Fatalf("state %+v came back as %+v", tr, back)
			}
			tr = back
		}
	})
}

// FuzzTrackerState decodes states.
func FuzzTrackerState(f *testing.F) {
	for s := range stateCount {
		tr := Tracker{state: s, formatted: true, checksum: ChecksumCRC32}
		if tr.InTransaction() {
			tr.gtid = gtid.GTID{SID: gtid.SID{Tag: "tag"}, GNO: 5}
		}
		f.Add(tr.AppendBinary(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var tr Tracker
		rest, err := tr.Decode(b)
		if err != nil {
			return
		}
		used := b[:len(b)-len(rest)]
		if again := tr.AppendBinary(nil); !bytes.EqualFold(again, used) { // tags are folded
			t.Fatalf("%x decoded to what encodes to %x", used, again)
		}
	})
}
