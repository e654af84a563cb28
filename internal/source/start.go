package source

import (
	"fmt"
	"strings"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
)

// Start says with which of the source's files a new stream begins, always at
// position 4. The zero value is the oldest.
type Start struct {
	kind startKind
	file string
	set  gtid.Set
}

type startKind int

const (
	startOldest startKind = iota
	startCurrent
	startFile
	startGTID
)

// ParseStart reads "" or "oldest", "current", "gtid:SET", or the name of a
// binlog file of the source. With a set it is the newest file before which there
// is nothing that the set lacks.
func ParseStart(text string) (Start, error) {
	switch {
	case text == "" || text == "oldest":
		return Start{}, nil
	case text == "current":
		return Start{kind: startCurrent}, nil
	case strings.HasPrefix(text, "gtid:"):
		set, err := gtid.ParseSet(strings.TrimPrefix(text, "gtid:"))
		if err != nil {
			return Start{}, fmt.Errorf("start %q: %w", text, err)
		}
		return Start{kind: startGTID, set: set}, nil
	}
	if err := binlog.ValidName(text); err != nil {
		return Start{}, fmt.Errorf("start %q is none of oldest, current, gtid:SET and a binlog file's name: %w", text, err)
	}
	return Start{kind: startFile, file: text}, nil
}

// String returns what ParseStart reads.
func (s Start) String() string {
	switch s.kind {
	case startCurrent:
		return "current"
	case startFile:
		return s.file
	case startGTID:
		return "gtid:" + s.set.String()
	}
	return "oldest"
}
