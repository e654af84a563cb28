package source

import (
	"encoding/binary"

	"kingbus/internal/gtid"
	"kingbus/internal/wire"
)

// dumpHeartbeatV2 is a flag of both dump commands (BINLOG_SEND_HEARTBEAT_EVENT_V2
// in sql/rpl_constants.h): heartbeats may have positions beyond 4 GiB. Sources
// before 8.0.28 ignore it, MySQL replicas set it since then. To MariaDB the same bit
// says that events of type ANNOTATE_ROWS are wanted (BINLOG_SEND_ANNOTATE_ROWS_EVENT in
// sql/log_event.h), without which a file would have holes.
const dumpHeartbeatV2 = 1 << 1

// registration is COM_REGISTER_SLAVE, whose source-side reader is
// Rpl_source register_replica (sql/rpl_source.cc): u8 0x15, u32 server id,
// then host, user and password with a length byte each, u16 port, u32 rank, u32
// source id.
func registration(serverID uint32, host string, port uint16) []byte {
	b := []byte{wire.ComRegisterReplica}
	b = binary.LittleEndian.AppendUint32(b, serverID)
	host = host[:min(len(host), maxReportHost)]
	b = append(b, byte(len(host)))
	b = append(b, host...)
	b = append(b, 0, 0) // user and password are never told
	b = binary.LittleEndian.AppendUint16(b, port)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// maxReportHost is the longest host name that every source takes (HOSTNAME_LENGTH
// of 5.6; longer ones are an error there).
const maxReportHost = 60

// dumpPosition is COM_BINLOG_DUMP: u8 0x12, u32 position, u16 flags, u32 server
// id, file name. It cannot name a position beyond 4 GiB.
func dumpPosition(serverID uint32, file string, pos uint32) []byte {
	b := []byte{wire.ComBinlogDump}
	b = binary.LittleEndian.AppendUint32(b, pos)
	b = binary.LittleEndian.AppendUint16(b, dumpHeartbeatV2)
	b = binary.LittleEndian.AppendUint32(b, serverID)
	return append(b, file...)
}

// dumpGTID is COM_BINLOG_DUMP_GTID: u8 0x1e, u16 flags, u32 server id, u32 length
// of the file name, the name, u64 position, u32 length of the set, the set.
func dumpGTID(serverID uint32, file string, pos uint64, have gtid.Set) []byte {
	b := []byte{wire.ComBinlogDumpGTID}
	b = binary.LittleEndian.AppendUint16(b, dumpHeartbeatV2)
	b = binary.LittleEndian.AppendUint32(b, serverID)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(file)))
	b = append(b, file...)
	b = binary.LittleEndian.AppendUint64(b, pos)
	set := have.AppendBinary(nil)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(set)))
	return append(b, set...)
}
