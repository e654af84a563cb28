package binlog

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxPayload is how many bytes of a payload's events are looked at.
const maxPayload = 32 << 20

// PayloadEvents returns the events in a whole TRANSACTION_PAYLOAD event, which have no
// checksum; not more than some 32 MiB of them, and none if they cannot be read.
func PayloadEvents(ev []byte, c Checksum) ([][]byte, error) {
	p, err := ParsePayloadHeader(ev[:min(len(ev), MaxWhole)], c)
	if err != nil {
		return nil, err
	}
	h, _ := ParseHeader(ev)
	if uint64(len(ev)) != uint64(h.Length) {
		return nil, malformed(h.Type, "%d bytes given of an event of %d", len(ev), h.Length)
	}
	packed := ev[p.Offset : len(ev)-c.Size()]
	events := packed
	if p.Compression == 0 {
		z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(2*maxPayload))
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, h.Type, err)
		}
		defer z.Close()
		if events, err = io.ReadAll(io.LimitReader(z, maxPayload)); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, h.Type, err)
		}
	}
	var out [][]byte
	for len(events) > 0 {
		inner, err := ParseHeader(events)
		if err != nil && len(out) == 0 {
			return nil, err
		}
		if err != nil || uint64(inner.Length) > uint64(len(events)) {
			break // cut off
		}
		out = append(out, events[:inner.Length])
		events = events[inner.Length:]
	}
	return out, nil
}
