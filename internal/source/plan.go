package source

import (
	"fmt"
	"strconv"
	"strings"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// facts are what the source says of itself.
type facts struct {
	version   string
	maria     bool
	uuid      string // "": MariaDB, or MySQL 5.5
	serverID  uint32
	logBin    bool
	gtidMode  string // ON, ON_PERMISSIVE, OFF_PERMISSIVE, OFF, UPGRADE_STEP_…
	executed  gtid.Set
	owned     gtid.Set // in the binlog, perhaps, and not executed yet: commits that wait for a semi-sync replica
	purged    gtid.Set
	files     []logFile // oldest first
	locked    bool      // the list of files cannot be had: see errLocked
	variables map[string]string
	// previous returns the PREVIOUS_GTIDS of a file; false if it has none.
	previous func(file string) (gtid.Set, bool, error)
}

// logFile is a row of SHOW BINARY LOGS.
type logFile struct {
	name string
	size uint64 // bytes; of an encrypted file 512 more
}

// atLeast compares the version with major.minor.
func (f *facts) atLeast(major, minor int) bool {
	parts := strings.SplitN(f.version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}

func (f *facts) file(name string) (logFile, bool) {
	for _, l := range f.files {
		if l.name == name {
			return l, true
		}
	}
	return logFile{}, false
}

// standing is where the stream is, and whom it followed.
type standing struct {
	identity stream.Identity
	source   stream.Source
	at       stream.Coordinates // of the source; File "" before the first file
	executed gtid.Set
	// fresh: no event was ever stored, so nothing can be missing.
	fresh bool
}

func standingOf(st stream.Status) standing {
	return standing{
		identity: st.Identity, source: st.Source, at: st.SourceEnd, executed: st.Executed,
		fresh: len(st.Files) == 0 || len(st.Files) == 1 && st.SourceEnd.Pos <= binlog.MagicSize,
	}
}

// plan is what to ask the source for.
type plan struct {
	at stream.Coordinates // where the first byte for the stream is
	// ask is the position asked for: that of at, or 4 if the request cannot
	// carry it. What comes before at is passed over then.
	ask uint64
	// byGTID asks with COM_BINLOG_DUMP_GTID, by name and position and with set:
	// it carries 64-bit positions, and lets the source check the set once more.
	byGTID bool
	set    gtid.Set
	// lost says that a file, or the rest of one, is not to be had any more, but
	// held no transaction that the stream lacks.
	lost string
}

// askFrom sets the request back to an earlier place in the file, if pos is one. With its
// set the source would leave out what is passed over, so that is asked by position.
func (p *plan) askFrom(pos, maxAsk uint64) {
	if pos >= p.ask {
		return
	}
	if p.ask, p.byGTID = pos, false; pos > maxAsk {
		p.ask = binlog.MagicSize
	}
}

// makePlan decides whether the source may be followed and from where. Errors are
// *Problem, or of facts.previous.
func makePlan(f *facts, s standing, start Start, maxAsk uint64) (plan, error) {
	if err := checkServer(f, s); err != nil {
		return plan{}, err
	}
	var p plan
	if s.fresh {
		file, err := startingFile(f, start, s.at.File)
		if err != nil {
			return plan{}, err
		}
		// Nothing must be filtered out of the first file: an empty set.
		p.at = stream.Coordinates{File: file, Pos: binlog.MagicSize}
	} else {
		var err error
		if p, err = resumePlan(f, s); err != nil {
			return plan{}, err
		}
		p.set = s.executed
	}
	// MySQL 5.6 takes a GTID dump into the middle of the file that it is
	// writing for one into a corrupt file, so it is asked by position.
	p.byGTID = f.gtidMode == "ON" && f.atLeast(5, 7)
	p.ask = p.at.Pos
	if !p.byGTID && p.ask > maxAsk {
		p.ask = binlog.MagicSize
	}
	return p, nil
}

// checkServer checks what has nothing to do with positions.
func checkServer(f *facts, s standing) error {
	switch {
	case !f.logBin:
		return &Problem{Kind: KindBinlogOff, Reason: "the source writes no binlog (log_bin is OFF)",
			Action: "start it with --log-bin and a --server-id, then kingbus goes on by itself"}
	case f.serverID == 0:
		return &Problem{Kind: KindServerID, Reason: "the source has server_id 0, with which it sends no binlog",
			Action: "SET GLOBAL server_id to a number that no other server has"}
	case f.serverID == s.identity.ServerID:
		return &Problem{Kind: KindServerID, Reason: fmt.Sprintf("the source has the same server_id as kingbus, %d", f.serverID),
			Action: "give the source another server_id, and check that it is not kingbus itself that is named as its source"}
	case f.uuid != "" && strings.EqualFold(f.uuid, s.identity.ServerUUID):
		return &Problem{Kind: KindServerUUID, Reason: "the source has the same server_uuid as kingbus, " + f.uuid,
			Action: "check that it is not kingbus itself that is named as its source; a MySQL server gets a new uuid when its auto.cnf is removed and it is restarted"}
	// Of servers without uuid the format description of the file tells (sameFormat).
	case s.source.UUID+s.source.Version != "" && !s.fresh && (!strings.EqualFold(s.source.UUID, f.uuid) || binlog.IsMariaDB(s.source.Version) != f.maria):
		action := "check host and port; this version of kingbus cannot go on with another server in the same data folder"
		if s.source.UUID == "" && !binlog.IsMariaDB(s.source.Version) {
			action += ", nor with the same one that was a MySQL 5.5 and has got a server_uuid by its upgrade"
		}
		return &Problem{Kind: KindOtherSource,
			Reason: fmt.Sprintf("this is another server than the one that kingbus followed: it is %s, that of before was %s", identify(f.version, f.uuid), identify(s.source.Version, s.source.UUID)),
			Action: action}
	case len(f.files) == 0 && !(f.locked && !s.fresh):
		return &Problem{Kind: KindBinlogOff, Reason: "the source lists no binlog file", Action: "check SHOW BINARY LOGS there"}
	}
	return nil
}

// identify tells servers apart, for messages.
func identify(version, uuid string) string {
	if uuid == "" {
		return "a " + printable(version) + " without server_uuid"
	}
	return "a " + printable(version) + " with server_uuid " + uuid
}

// startingFile chooses the first file. begun is the one that an earlier
// connection chose without getting anything of it, or "".
func startingFile(f *facts, start Start, begun string) (string, error) {
	if _, there := f.file(begun); there {
		return begun, nil
	}
	oldest, newest := f.files[0].name, f.files[len(f.files)-1].name
	switch start.kind {
	case startCurrent:
		return newest, nil
	case startFile:
		if _, there := f.file(start.file); !there {
			return "", &Problem{Kind: KindStart, Reason: fmt.Sprintf("the source has no file %s to start with; it has %s to %s", start.file, oldest, newest),
				Action: "choose one of them, or leave the start out to begin with the oldest"}
		}
		return start.file, nil
	case startGTID:
		if f.uuid == "" {
			return "", &Problem{Kind: KindStart, Reason: "the source, " + printable(f.version) + ", has no GTIDs of MySQL's kind to start with",
				Action: "choose a file, or leave the start out to begin with the oldest"}
		}
		for i := len(f.files) - 1; i >= 0; i-- {
			set, ok, err := f.previous(f.files[i].name)
			if err != nil {
				return "", err
			}
			if ok && start.set.ContainsSet(set) {
				return f.files[i].name, nil
			}
		}
		return "", &Problem{Kind: KindStart,
			Reason: "no file of the source begins within the GTID set to start with; it has purged " + f.purged.Subtract(start.set).String(),
			Action: "choose a set that contains @@GLOBAL.gtid_purged of the source, or leave the start out to begin with the oldest file"}
	}
	return oldest, nil
}

// resumePlan finds out whether the source is still the one whose events the
// stream holds, and has what comes next.
func resumePlan(f *facts, s standing) (plan, error) {
	at := s.at
	p := plan{at: at}
	useGTIDs := f.gtidMode != "OFF" // what an old server says then may be nothing at all
	if missing := s.executed.Subtract(f.executed).Subtract(f.owned); useGTIDs && !missing.IsEmpty() {
		return plan{}, &Problem{Kind: KindBehind, At: at,
			Reason: "the source is behind kingbus: it was reset, restored, or lost the end of its binlog in a crash. It lacks " + clip(missing),
			Action: "do not let it go on like that: its new transactions would get GTIDs that kingbus has stored for others. Recover the missing transactions into it from kingbus (mysqlbinlog --read-from-remote-server), or begin with an empty data folder"}
	}
	if missing := f.purged.Subtract(s.executed); useGTIDs && !missing.IsEmpty() {
		return plan{}, &Problem{Kind: KindLostHistory, At: at,
			Reason: "the source no longer has history that kingbus does not have: it has purged " + clip(missing),
			Action: "restore the purged binlog files on the source if there are copies; else begin with an empty data folder"}
	}
	if f.locked { // the source looks for itself whether the position is there
		return p, nil
	}
	file, there := f.file(at.File)
	if there {
		if at.Pos > file.size {
			return plan{}, &Problem{Kind: KindReset, At: at,
				Reason: fmt.Sprintf("the source's file %s has only %d bytes: it was reset, restored, or lost the end of its binlog in a crash", file.name, file.size),
				Action: "compare the source's data with kingbus's binlog; to follow it as it is now, begin with an empty data folder"}
		}
		return p, nil
	}
	oldest := f.files[0].name
	if !precedes(at.File, oldest) {
		return plan{}, &Problem{Kind: KindReset, At: at,
			Reason: fmt.Sprintf("the source has no file %s any more, only %s to %s: it was reset or restored", at.File, oldest, f.files[len(f.files)-1].name),
			Action: "to follow it as it is now, begin with an empty data folder"}
	}
	if f.gtidMode != "ON" || s.source.Variables["gtid_mode"] != "ON" {
		return plan{}, &Problem{Kind: KindLostHistory, At: at,
			Reason: fmt.Sprintf("the source has purged %s, which kingbus was reading; its oldest file is %s, and without GTIDs nobody can tell whether events in between are missing", at.File, oldest),
			Action: "restore the purged binlog files on the source if there are copies; else begin with an empty data folder"}
	}
	// Purged is contained in ours, and everything in files before the oldest is
	// in purged: no transaction is missing.
	p.at = stream.Coordinates{File: oldest, Pos: binlog.MagicSize}
	p.lost = fmt.Sprintf("the source has purged its files from %s on; they held no transaction that kingbus lacks, so it goes on with %s", at, oldest)
	return p, nil
}

// precedes tells whether both names count the same series and a comes first.
func precedes(a, b string) bool {
	base := func(s string) (string, uint64) {
		dot := strings.LastIndexByte(s, '.')
		n, err := strconv.ParseUint(s[dot+1:], 10, 64)
		if err != nil {
			return "", 0
		}
		return s[:dot+1], n
	}
	x, n := base(a)
	y, m := base(b)
	return x == y && n < m
}

// clip shortens a set for a message.
func clip(s gtid.Set) string {
	const most = 1000
	text := strings.ReplaceAll(s.String(), "\n", "")
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// sameFormat compares the format description that the source sends on resuming
// with the stored one. In position mode beyond position 4 the source has set
// end_log_pos and the creation time to 0, and made a new checksum (5.6 also with
// GTIDs).
func sameFormat(stored, sent []byte) (bool, error) {
	a, err := binlog.ParseFormatDescription(stored)
	if err != nil {
		return false, fmt.Errorf("the stored format description: %w", err)
	}
	b, err := binlog.ParseFormatDescription(sent)
	if err != nil {
		return false, err
	}
	x, _ := binlog.ParseHeader(stored)
	y, _ := binlog.ParseHeader(sent)
	return x.Timestamp == y.Timestamp && x.ServerID == y.ServerID && x.Length == y.Length &&
		(x.LogPos == y.LogPos || y.LogPos == 0) &&
		a.ServerVersion == b.ServerVersion && string(a.HeaderLengths) == string(b.HeaderLengths) &&
		a.Checksum == b.Checksum && a.HasChecksum == b.HasChecksum &&
		(a.Created == b.Created || b.Created == 0), nil
}
