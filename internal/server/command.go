package server

import (
	"fmt"
	"strings"

	"kingbus/internal/gtid"
	"kingbus/internal/wire"
)

// Flags of dump requests (sql/rpl_constants.h and the manual page
// "COM_BINLOG_DUMP"). Other bits are ignored, as MySQL 9.7 does.
const (
	flagNonBlock    uint16 = 1 // EOF at the end of the binlog instead of waiting
	flagHeartbeatV2 uint16 = 2 // the client knows heartbeats of version 2
	flagAnnotate    uint16 = 2 // the same bit from a MariaDB: it wants ANNOTATE_ROWS events
)

// maxRequestName is the longest file name in a COM_BINLOG_DUMP_GTID, in bytes
// (FN_REFLEN).
const maxRequestName = 512

// dumpRequest is COM_BINLOG_DUMP or COM_BINLOG_DUMP_GTID.
type dumpRequest struct {
	flags    uint16
	serverID uint32
	file     string // "": the first one, or what have leads to
	pos      uint64
	// have is what the client has; it counts if gtidMode.
	have     gtid.Set
	gtidMode bool
}

var errMalformedPacket = wire.Errorf(wire.ErMalformedPacket, "Malformed communication packet.")

// parseDump decodes the payload of COM_BINLOG_DUMP:
//
//	u32 position, u16 flags, u32 server id, file name to the end
func parseDump(payload []byte) (dumpRequest, *wire.Error) {
	c := wire.NewCursor(payload)
	r := dumpRequest{pos: uint64(c.U32()), flags: c.U16(), serverID: c.U32()}
	r.file = fileName(c.Rest())
	if c.Err() != nil {
		return dumpRequest{}, errMalformedPacket
	}
	return r, nil
}

// parseDumpGTID decodes the payload of COM_BINLOG_DUMP_GTID:
//
//	u16 flags, u32 server id, u32 length of the file name, file name, u64
//	position, u32 length of the set, the set in one of its two encodings
func parseDumpGTID(payload []byte) (dumpRequest, *wire.Error) {
	c := wire.NewCursor(payload)
	r := dumpRequest{flags: c.U16(), serverID: c.U32(), gtidMode: true}
	n := c.U32()
	if n > maxRequestName {
		return dumpRequest{}, errMalformedPacket
	}
	r.file = fileName(c.Bytes(int(n)))
	r.pos = c.U64()
	set := c.Bytes(int(c.U32()))
	if c.Err() != nil {
		return dumpRequest{}, errMalformedPacket
	}
	var err error
	if r.have, err = gtid.DecodeSet(set); err != nil {
		return dumpRequest{}, wire.Errorf(wire.ErMalformedGTIDSetEncoding, "Malformed GTID set encoding.")
	}
	return r, nil
}

// fileName takes a name up to its first NUL: replicas of 5.6 and 5.7 send names
// that are all NUL and mean none.
func fileName(b []byte) string {
	name, _, _ := strings.Cut(string(b), "\x00")
	return name
}

// registration is COM_REGISTER_SLAVE.
type registration struct {
	serverID uint32
	host     string
	user     string
	password string
	port     uint16
}

// Bounds on the strings of a registration in bytes (sql/rpl_source.cc).
const (
	maxReportHost     = 60 * 4 // HOSTNAME_LENGTH was 60 up to 8.0.16, and longer ones are no harm
	maxReportUser     = 32 * 3
	maxReportPassword = 32 * 3
)

// parseRegister decodes the payload of COM_REGISTER_SLAVE:
//
//	u32 server id, string<lenenc> host, user, password, u16 port, u32 rank,
//	u32 source id
func parseRegister(payload []byte) (registration, *wire.Error) {
	c := wire.NewCursor(payload)
	r := registration{serverID: c.U32()}
	var tooLong string
	read := func(into *string, max int, what string) {
		b := c.LenEncBytes()
		if len(b) > max {
			tooLong = what
			return
		}
		*into = string(b)
	}
	read(&r.host, maxReportHost, "hostname")
	read(&r.user, maxReportUser, "user")
	read(&r.password, maxReportPassword, "password")
	r.port = c.U16()
	c.U32() // rank
	c.U32() // id of the source's source
	switch {
	case tooLong != "":
		return registration{}, wire.Errorf(wire.ErUnknown, "Wrong parameters to function register_replica: %s is too long", tooLong)
	case c.Err() != nil:
		return registration{}, wire.Errorf(wire.ErUnknown, "Wrong parameters to function register_replica")
	}
	return r, nil
}

// String is for logs.
func (r dumpRequest) String() string {
	if r.gtidMode {
		return fmt.Sprintf("gtid set of %d intervals, file %q position %d, flags %d, server id %d", r.have.Intervals(), r.file, r.pos, r.flags, r.serverID)
	}
	return fmt.Sprintf("file %q position %d, flags %d, server id %d", r.file, r.pos, r.flags, r.serverID)
}
