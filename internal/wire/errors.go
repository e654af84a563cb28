package wire

import (
	"errors"
	"fmt"
	"strings"
)

// Codes of server errors, with the names of MySQL's message file
// (share/messages_to_clients.txt).
const (
	ErConCount                 uint16 = 1040
	ErOutOfResources           uint16 = 1041
	ErBadHost                  uint16 = 1042
	ErHandshake                uint16 = 1043
	ErDBAccessDenied           uint16 = 1044
	ErAccessDenied             uint16 = 1045
	ErNoDB                     uint16 = 1046
	ErUnknownCom               uint16 = 1047
	ErBadDB                    uint16 = 1049
	ErServerShutdown           uint16 = 1053
	ErBadField                 uint16 = 1054
	ErParse                    uint16 = 1064
	ErEmptyQuery               uint16 = 1065
	ErNoSuchThread             uint16 = 1094
	ErKillDenied               uint16 = 1095
	ErUnknown                  uint16 = 1105
	ErHostIsBlocked            uint16 = 1129
	ErHostNotPrivileged        uint16 = 1130
	ErNonexistingGrant         uint16 = 1141
	ErTableAccessDenied        uint16 = 1142
	ErNoSuchTable              uint16 = 1146
	ErNetPacketTooLarge        uint16 = 1153
	ErNetPacketsOutOfOrder     uint16 = 1156
	ErNetRead                  uint16 = 1158
	ErNetReadInterrupted       uint16 = 1159
	ErNetWrite                 uint16 = 1160
	ErNetWriteInterrupted      uint16 = 1161
	ErNewAbortingConnection    uint16 = 1184
	ErUnknownSystemVariable    uint16 = 1193
	ErWrongArguments           uint16 = 1210
	ErSpecificAccessDenied     uint16 = 1227
	ErWrongValueForVar         uint16 = 1231
	ErNotSupportedYet          uint16 = 1235
	ErSourceFatalReadingBinlog uint16 = 1236 // ER_MASTER_FATAL_ERROR_READING_BINLOG
	ErIncorrectGlobalLocalVar  uint16 = 1238
	ErUnknownStmtHandler       uint16 = 1243
	ErCantCreateUserWithGrant  uint16 = 1410
	ErNotSupportedAuthMode     uint16 = 1251
	ErOptionPreventsStatement  uint16 = 1290
	ErQueryInterrupted         uint16 = 1317
	ErMaxPreparedStmtCount     uint16 = 1461
	ErPluginIsNotLoaded        uint16 = 1524
	ErSPDoesNotExist           uint16 = 1305
	ErMalformedGTIDSetEncoding uint16 = 1773
	ErMalformedPacket          uint16 = 1835
	ErSecureTransportRequired  uint16 = 3159
	ErClientInteractionTimeout uint16 = 4031
	ErMariaDBReplicaSameID     uint16 = 4052 // MariaDB 11: a slave with the same server_id is connected
	maxErrorMessage                   = 511  // MYSQL_ERRMSG_SIZE less its NUL; longer texts are cut
	defaultState                      = "HY000"
)

// Error is an error of the protocol itself: what a server answers instead of
// OK. Client methods return it when the server refuses; Session.WriteError
// sends it.
type Error struct {
	Code    uint16
	State   string // SQLSTATE, five characters; "" before the login is complete
	Message string
}

// Error gives code, state and text in the order of the mysql client.
func (e *Error) Error() string {
	if e.State == "" {
		return fmt.Sprintf("MySQL error %d: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("MySQL error %d (%s): %s", e.Code, e.State, e.Message)
}

// Errorf makes an Error with MySQL's SQLSTATE for the code.
func Errorf(code uint16, format string, args ...any) *Error {
	return &Error{Code: code, State: sqlState(code), Message: fmt.Sprintf(format, args...)}
}

// IsCode reports whether err is, or wraps, a server error with one of the codes.
func IsCode(err error, codes ...uint16) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

func sqlState(code uint16) string {
	switch code {
	case ErConCount, ErNotSupportedAuthMode:
		return "08004"
	case ErBadHost, ErHandshake, ErUnknownCom, ErServerShutdown, ErNetPacketTooLarge, ErNetPacketsOutOfOrder,
		ErNetRead, ErNetReadInterrupted, ErNetWrite, ErNetWriteInterrupted, ErNewAbortingConnection:
		return "08S01"
	case ErAccessDenied:
		return "28000"
	case ErNoDB:
		return "3D000"
	case ErDBAccessDenied, ErBadDB, ErParse, ErEmptyQuery, ErSpecificAccessDenied, ErWrongValueForVar, ErNotSupportedYet,
		ErNonexistingGrant, ErCantCreateUserWithGrant, ErTableAccessDenied, ErSPDoesNotExist, ErMaxPreparedStmtCount:
		return "42000"
	case ErBadField:
		return "42S22"
	case ErNoSuchTable:
		return "42S02"
	case ErQueryInterrupted:
		return "70100"
	}
	return defaultState
}

// accessDenied is MySQL's answer to a wrong name or password, the same for both.
func accessDenied(user, host string, withPassword bool) *Error {
	using := "NO"
	if withPassword {
		using = "YES"
	}
	return Errorf(ErAccessDenied, "Access denied for user '%s'@'%s' (using password: %s)",
		strings.ToValidUTF8(user, "?"), host, using)
}

// Errors that callers branch on.
var (
	// ErrMalformed: a packet does not have the form that the protocol prescribes.
	ErrMalformed = errors.New("wire: malformed packet")
	// ErrPayloadLength: the bytes written differ in number from those announced
	// with BeginPayload. A bug of the caller; the connection cannot go on.
	ErrPayloadLength = errors.New("wire: payload differs from its announced length")
	// ErrPipelined: the peer sent plain bytes where TLS must begin. Whoever sits
	// between the peers could have put them there.
	ErrPipelined = errors.New("wire: unencrypted data sent ahead of the TLS handshake")
	// ErrTLSRequired: TLS is demanded by the configuration and the server has none.
	ErrTLSRequired = errors.New("wire: TLS is required, but the server does not offer it")
	// ErrInsecurePassword: the server asks for the password over an unencrypted
	// connection and no RSA key may be used (client error 2061).
	ErrInsecurePassword = errors.New("wire: the server asks for the password, but the connection is not encrypted: " +
		"use TLS, or name the server's public key, or allow it to be requested from the server")
	// ErrAuthUnsupported: the server demands a way of authentication that this
	// package refuses or does not know.
	ErrAuthUnsupported = errors.New("wire: authentication method not supported")
	// ErrResultTooLarge: a result set exceeds ClientConfig.MaxResult.
	ErrResultTooLarge = errors.New("wire: result set is too large")
)

// SequenceError is a packet that does not carry the number that is due: bytes
// were lost or inserted, or the peers disagree about where an exchange began.
type SequenceError struct{ Got, Want byte }

func (e *SequenceError) Error() string {
	return fmt.Sprintf("wire: packets out of order: got number %d, want %d", e.Got, e.Want)
}

// TooLargeError is a payload beyond the bound that the reader gave. The server
// role answers it with ErNetPacketTooLarge and closes.
type TooLargeError struct {
	Size int // bytes, at least: what was announced so far
	Max  int // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("wire: packet of at least %d bytes exceeds the limit of %d", e.Size, e.Max)
}
