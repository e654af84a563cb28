package binlog

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Info returns what SHOW BINLOG EVENTS prints of an event in its last column
// (Log_event::pack_info in sql/log_event.cc), of which head is the beginning: the whole
// event if it has at most MaxWhole bytes, else at least so much. Of a longer one the text
// may be cut. An event that is not understood has none.
func Info(head []byte, c Checksum) string {
	h, err := ParseHeader(head)
	if err != nil || fits(h, head) != nil {
		return ""
	}
	end := min(len(head), int(h.Length)-c.Size())
	if h.Type == TypeFormatDescription || end < HeaderSize {
		end = len(head)
	}
	r := reader{rest: head[HeaderSize:end]}
	text := r.info(h, head, c)
	if r.bad {
		return ""
	}
	return text
}

// info reads the body. r is bad if it is not as it should be.
func (r *reader) info(h Header, head []byte, c Checksum) string {
	check := func(err error) { r.bad = r.bad || err != nil }
	switch h.Type {
	case TypeFormatDescription:
		f, err := ParseFormatDescription(head)
		check(err)
		return fmt.Sprintf("Server ver: %s, Binlog ver: %d", f.ServerVersion, f.BinlogVersion)
	case TypePreviousGTIDs:
		set, err := ParsePreviousGTIDs(head, c)
		check(err)
		return set.String()
	case TypeGTID, TypeAnonymousGTID, TypeGTIDTagged:
		g, err := ParseGTID(head, c)
		check(err)
		if g.GTID.IsZero() {
			return "SET @@SESSION.GTID_NEXT= 'ANONYMOUS'"
		}
		return "SET @@SESSION.GTID_NEXT= '" + g.GTID.String() + "'"
	case TypeRotate:
		to, err := ParseRotate(head, c)
		check(err)
		return to.Name + ";pos=" + strconv.FormatUint(to.Position, 10)
	case TypeQuery:
		q, err := ParseQuery(head, c)
		check(err)
		return queryInfo(h, q.Schema, q.Text) + xidInfo(q.StatusVars)
	case TypeExecuteLoadQuery:
		return r.loadQueryInfo(h)
	case TypeMariaQueryCompressed:
		return r.compressedInfo(h)
	case TypeXID:
		xid, err := ParseXID(head, c)
		check(err)
		return "COMMIT /* xid=" + strconv.FormatUint(xid, 10) + " */"
	case TypeXAPrepare:
		x, err := ParseXAPrepare(head, c)
		check(err)
		if x.OnePhase {
			return "XA COMMIT " + xidText(x.Format, x.GTRID, x.BQUAL) + " ONE PHASE"
		}
		return "XA PREPARE " + xidText(x.Format, x.GTRID, x.BQUAL)
	case TypeIntvar:
		name := "INSERT_ID="
		if r.uint(1) == 1 {
			name = "LAST_INSERT_ID="
		}
		return name + strconv.FormatUint(r.uint(8), 10)
	case TypeRand:
		return fmt.Sprintf("rand_seed1=%d,rand_seed2=%d", r.uint(8), r.uint(8))
	case TypeUserVar:
		return r.userVarInfo()
	case TypeTableMap:
		id, _, schema := r.uint(tableIDSize), r.uint(2), string(r.bytes(r.uint(1)))
		r.uint(1)
		return fmt.Sprintf("table_id: %d (%s.%s)", id, schema, r.bytes(r.uint(1)))
	case TypeWriteRowsV1, TypeUpdateRowsV1, TypeDeleteRowsV1, TypeWriteRows, TypeUpdateRows, TypeDeleteRows, TypePartialUpdateRows,
		TypeMariaWriteRowsCompressedV1, TypeMariaUpdateRowsCompressedV1, TypeMariaDeleteRowsCompressedV1,
		TypeMariaWriteRowsCompressed, TypeMariaUpdateRowsCompressed, TypeMariaDeleteRowsCompressed:
		return rowsInfo(r.uint(tableIDSize), uint16(r.uint(2)))
	case TypeRowsQuery:
		r.uint(1) // a length that is too short for it
		return "# " + string(r.rest)
	case TypeBeginLoadQuery, TypeAppendBlock:
		id := r.uint(4)
		return fmt.Sprintf(";file_id=%d;block_len=%d", id, int(h.Length)-HeaderSize-4-c.Size())
	case TypeDeleteFile:
		return fmt.Sprintf(";file_id=%d", r.uint(4))
	case TypeIncident:
		i, err := ParseIncident(head, c)
		check(err)
		name := "NOTHING"
		if i.Number == 1 {
			name = "LOST_EVENTS"
		}
		if i.Text == "" {
			return fmt.Sprintf("#%d (%s)", i.Number, name)
		}
		return fmt.Sprintf("#%d (%s): %s", i.Number, name, i.Text)
	case TypeTransactionPayload:
		p, err := ParsePayloadHeader(head, c)
		check(err)
		if p.Compression == 0 {
			return fmt.Sprintf("compression='ZSTD', decompressed_size=%d bytes", p.Uncompressed)
		}
		return "compression='NONE'"
	case TypeMariaGTID:
		return r.mariaGTIDInfo(h)
	case TypeMariaGTIDList:
		var list []MariaGTID
		for n := r.uint(4) & (1<<28 - 1); n > 0 && !r.bad; n-- {
			list = append(list, MariaGTID{uint32(r.uint(4)), uint32(r.uint(4)), r.uint(8)})
		}
		slices.SortStableFunc(list, func(a, b MariaGTID) int { return cmp.Compare(a.Domain, b.Domain) })
		texts := make([]string, len(list))
		for i, g := range list {
			texts[i] = g.String()
		}
		return "[" + strings.Join(texts, ",") + "]"
	case TypeMariaBinlogCheckpoint:
		return string(r.bytes(r.uint(4)))
	case TypeMariaAnnotateRows:
		return string(r.rest)
	}
	return ""
}

// queryInfo is a statement, with USE in front where a replica has to do that.
func queryInfo(h Header, schema, text []byte) string {
	if len(schema) > 0 && h.Flags&FlagSuppressUse == 0 {
		return "use `" + strings.ReplaceAll(string(schema), "`", "``") + "`; " + string(text)
	}
	return string(text)
}

// statusVarSizes are the sizes of the status variables of a QUERY event by their codes
// (sql/log_event.h, Query_event in libs/mysql/binlog/event/statement_events.h); -1 is
// one of its own kind.
var statusVarSizes = [...]int{4, 8, -1, 4, 6, -1, -1, 2, 2, 8, 4, -1, -1, 3, 8, 8, 1, 8, 2, 1, 1}

// xidInfo is what is said of a DDL statement that is a transaction of InnoDB.
func xidInfo(vars []byte) string {
	const catalog, timeZone, catalogNZ, invoker, databases, ddlXID = 2, 5, 6, 11, 12, 17
	r := reader{rest: vars}
	for len(r.rest) > 0 && !r.bad {
		switch code := r.uint(1); {
		case code == ddlXID:
			return " /* xid=" + strconv.FormatUint(r.uint(8), 10) + " */"
		case code == catalog:
			r.bytes(r.uint(1) + 1)
		case code == timeZone, code == catalogNZ:
			r.bytes(r.uint(1))
		case code == invoker:
			r.bytes(r.uint(1))
			r.bytes(r.uint(1))
		case code == databases:
			n := r.uint(1)
			for ; n > 0 && n < 254; n-- { // 254: too many to list
				end := bytes.IndexByte(r.rest, 0)
				r.bytes(uint64(end + 1))
				r.bad = r.bad || end < 0
			}
		case code < uint64(len(statusVarSizes)):
			r.bytes(uint64(statusVarSizes[code]))
		default:
			return ""
		}
	}
	return ""
}

// loadQueryInfo reads an EXECUTE_LOAD_QUERY: a QUERY event with u32 file, u32 and u32
// where its name stands, u8 duplicates behind its fixed part.
func (r *reader) loadQueryInfo(h Header) string {
	r.bytes(8)
	schema := r.uint(1)
	r.bytes(2)
	status := r.uint(2)
	file := r.uint(4)
	r.bytes(4 + 4 + 1)
	r.bytes(status)
	name := r.bytes(schema)
	r.bytes(1)
	return queryInfo(h, name, r.rest) + " ;file_id=" + strconv.FormatUint(file, 10)
}

// maxInflated bounds the statement of a QUERY_COMPRESSED event that is looked at.
const maxInflated = 1 << 20

// compressedInfo reads a QUERY_COMPRESSED event of MariaDB: a QUERY event whose statement is u8
// with the size of a length in its low 3 bits, that length with the high byte first, and
// the statement as zlib compresses it (sql/log_event.cc there, binlog_buf_compress).
func (r *reader) compressedInfo(h Header) string {
	r.bytes(8)
	schema := r.uint(1)
	r.bytes(2)
	status := r.uint(2)
	r.bytes(status)
	name := r.bytes(schema)
	r.bytes(1)
	r.bytes(r.uint(1) & 7)
	if r.bad {
		return ""
	}
	z, err := zlib.NewReader(bytes.NewReader(r.rest))
	if err != nil {
		r.bad = true
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(z, maxInflated))
	r.bad = err != nil
	return queryInfo(h, name, text)
}

func xidText(format uint32, gtrid, bqual []byte) string {
	return fmt.Sprintf("X'%x',X'%x',%d", gtrid, bqual, format)
}

// rowsInfo names the flags of a rows event.
func rowsInfo(table uint64, flags uint16) string {
	text := "table_id: " + strconv.FormatUint(table, 10)
	if flags == 0 {
		return text
	}
	names := []string{"STMT_END_F", "NO_FOREIGN_KEY_CHECKS_F", "RELAXED_UNIQUE_CHECKS_F", "COMPLETE_ROWS_F", "USE_SQL_FOREIGN_KEY_F"}
	var set []string
	for i, name := range names {
		if flags&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return text + " flags: " + strings.Join(set, " ")
}

// userVarInfo reads a USER_VAR event: u32 length of the name, the name, u8 NULL or not;
// u8 type, u32 collation, u32 length, the value, u8 flags.
func (r *reader) userVarInfo() string {
	const text, double, whole, decimal, unsigned = 0, 1, 2, 4, 1
	name := "@`" + strings.ReplaceAll(string(r.bytes(r.uint(4))), "`", "``") + "`="
	if r.uint(1) != 0 {
		return name + "NULL"
	}
	kind, collation := r.uint(1), r.uint(4)
	value := r.bytes(r.uint(4))
	var flags uint64
	if len(r.rest) > 0 {
		flags = r.uint(1)
	}
	switch {
	case kind == whole && len(value) == 8 && flags&unsigned != 0:
		return name + strconv.FormatUint(binary.LittleEndian.Uint64(value), 10)
	case kind == whole && len(value) == 8:
		return name + strconv.FormatInt(int64(binary.LittleEndian.Uint64(value)), 10)
	case kind == double && len(value) == 8:
		return name + strconv.FormatFloat(math.Float64frombits(binary.LittleEndian.Uint64(value)), 'g', 14, 64)
	case kind == text:
		charset, known := collations[collation]
		if !known {
			return name + "???"
		}
		return name + "_" + charset.charset + " 0x" + strings.ToUpper(hex.EncodeToString(value)) + " COLLATE " + charset.name
	case kind == decimal && len(value) > 2:
		return name + decimalText(value)
	}
	r.bad = true
	return ""
}

// collations are those that clients use, by their ids.
var collations = map[uint64]struct{ charset, name string }{
	8: {"latin1", "latin1_swedish_ci"}, 11: {"ascii", "ascii_general_ci"}, 33: {"utf8mb3", "utf8mb3_general_ci"},
	45: {"utf8mb4", "utf8mb4_general_ci"}, 46: {"utf8mb4", "utf8mb4_bin"}, 47: {"latin1", "latin1_bin"}, 63: {"binary", "binary"},
	83: {"utf8mb3", "utf8mb3_bin"}, 192: {"utf8mb3", "utf8mb3_unicode_ci"}, 224: {"utf8mb4", "utf8mb4_unicode_ci"}, 255: {"utf8mb4", "utf8mb4_0900_ai_ci"},
}

// decimalText prints a DECIMAL: u8 precision, u8 scale, then groups of nine digits in four
// bytes, high byte first, with the sign in the first bit (strings/decimal.cc,
// decimal2bin).
func decimalText(b []byte) string {
	const group = 9
	sizes := [...]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4} // bytes of so many digits
	scale := int(b[1])
	whole := int(b[0]) - scale
	b = bytes.Clone(b[2:])
	if whole < 0 || len(b) != sizes[whole%group]+4*(whole/group)+4*(scale/group)+sizes[scale%group] {
		return "???"
	}
	negative := b[0]&0x80 == 0
	b[0] ^= 0x80
	if negative {
		for i := range b {
			b[i] ^= 0xff
		}
	}
	take := func(digits int) string {
		n := uint64(0)
		for _, x := range b[:sizes[digits]] {
			n = n<<8 | uint64(x)
		}
		b = b[sizes[digits]:]
		return fmt.Sprintf("%0*d", digits, n)
	}
	text := ""
	if whole%group > 0 {
		text = take(whole % group)
	}
	for range whole / group {
		text += take(group)
	}
	if text = strings.TrimLeft(text, "0"); text == "" {
		text = "0"
	}
	if scale > 0 {
		text += "."
		for range scale / group {
			text += take(group)
		}
		if scale%group > 0 {
			text += take(scale % group)
		}
	}
	if negative {
		return "-" + text
	}
	return text
}

// mariaGTIDInfo reads the rest of MariaDB's GTID event (see ParseMariaGTID): [u64 commit id
// if flags2 has 2], [XA if 64 or 128: u32 format, u8 and u8 lengths, both], u8 more flags,
// [u8 engines if 1], [u64 number of the ALTER's start if 4 or 8].
func (r *reader) mariaGTIDInfo(h Header) string {
	const commitID, prepared, completed = 2, 64, 128
	const engines, startAlter, commitAlter, rollbackAlter = 1, 2, 4, 8
	seq := r.uint(8)
	id := MariaGTID{Domain: uint32(r.uint(4)), Server: h.ServerID, Sequence: seq}.String()
	flags := r.uint(1)
	end := ""
	if flags&commitID != 0 {
		end = " cid=" + strconv.FormatUint(r.uint(8), 10)
	}
	begin := "BEGIN GTID "
	if flags&mariaStandalone != 0 {
		begin = "GTID "
	}
	if flags&(prepared|completed) != 0 {
		format, n, m := uint32(r.uint(4)), r.uint(1), r.uint(1)
		if xid := xidText(format, r.bytes(n), r.bytes(m)); flags&prepared != 0 {
			begin = "XA START " + xid + " GTID "
		}
	}
	if len(r.rest) > 0 {
		more := r.uint(1)
		if more&engines != 0 {
			r.uint(1)
		}
		switch {
		case more&startAlter != 0:
			end += " START ALTER"
		case more&commitAlter != 0:
			end += " COMMIT ALTER id=" + strconv.FormatUint(r.uint(8), 10)
		case more&rollbackAlter != 0:
			end += " ROLLBACK ALTER id=" + strconv.FormatUint(r.uint(8), 10)
		}
	}
	return begin + id + end
}
