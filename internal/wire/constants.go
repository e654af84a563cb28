package wire

// Capability flags of the greeting and of the login (manual page "Capabilities
// Flags"). Bits that this package neither offers nor understands have no name.
const (
	ClientLongPassword     uint32 = 1 << 0 // MariaDB: "the client is not MariaDB's own"
	ClientFoundRows        uint32 = 1 << 1
	ClientLongFlag         uint32 = 1 << 2
	ClientConnectWithDB    uint32 = 1 << 3
	ClientNoSchema         uint32 = 1 << 4
	ClientODBC             uint32 = 1 << 6
	ClientIgnoreSpace      uint32 = 1 << 8
	ClientProtocol41       uint32 = 1 << 9
	ClientInteractive      uint32 = 1 << 10
	ClientSSL              uint32 = 1 << 11
	ClientIgnoreSigpipe    uint32 = 1 << 12
	ClientTransactions     uint32 = 1 << 13
	ClientSecureConnection uint32 = 1 << 15 // "CLIENT_RESERVED2" since 8.0
	ClientMultiResults     uint32 = 1 << 17
	ClientPSMultiResults   uint32 = 1 << 18
	ClientPluginAuth       uint32 = 1 << 19
	ClientConnectAttrs     uint32 = 1 << 20
	ClientPluginAuthLenenc uint32 = 1 << 21
	ClientDeprecateEOF     uint32 = 1 << 24
)

// Server status flags (manual page "SERVER_STATUS_flags_enum").
const (
	StatusInTransaction uint16 = 1 << 0
	StatusAutocommit    uint16 = 1 << 1
	StatusMoreResults   uint16 = 1 << 3
)

// Commands, the first byte of the payload that opens an exchange (manual page
// "Command Phase"; my_command.h).
const (
	ComSleep            byte = 0x00
	ComQuit             byte = 0x01
	ComInitDB           byte = 0x02
	ComQuery            byte = 0x03
	ComFieldList        byte = 0x04
	ComRefresh          byte = 0x07
	ComStatistics       byte = 0x09
	ComProcessInfo      byte = 0x0a
	ComProcessKill      byte = 0x0c
	ComDebug            byte = 0x0d
	ComPing             byte = 0x0e
	ComChangeUser       byte = 0x11
	ComBinlogDump       byte = 0x12
	ComRegisterReplica  byte = 0x15 // COM_REGISTER_SLAVE
	ComStmtPrepare      byte = 0x16
	ComStmtExecute      byte = 0x17
	ComStmtSendLongData byte = 0x18
	ComStmtClose        byte = 0x19
	ComStmtReset        byte = 0x1a
	ComSetOption        byte = 0x1b
	ComStmtFetch        byte = 0x1c
	ComBinlogDumpGTID   byte = 0x1e
	ComResetConnection  byte = 0x1f
)

// Column types (manual page "enum_field_types").
const (
	TypeDecimal    byte = 0x00
	TypeTiny       byte = 0x01
	TypeShort      byte = 0x02
	TypeLong       byte = 0x03
	TypeFloat      byte = 0x04
	TypeDouble     byte = 0x05
	TypeNull       byte = 0x06
	TypeTimestamp  byte = 0x07
	TypeLongLong   byte = 0x08
	TypeInt24      byte = 0x09
	TypeDate       byte = 0x0a
	TypeTime       byte = 0x0b
	TypeDatetime   byte = 0x0c
	TypeYear       byte = 0x0d
	TypeVarchar    byte = 0x0f
	TypeBit        byte = 0x10
	TypeJSON       byte = 0xf5
	TypeNewDecimal byte = 0xf6
	TypeEnum       byte = 0xf7
	TypeSet        byte = 0xf8
	TypeTinyBlob   byte = 0xf9
	TypeMediumBlob byte = 0xfa
	TypeLongBlob   byte = 0xfb
	TypeBlob       byte = 0xfc
	TypeVarString  byte = 0xfd
	TypeString     byte = 0xfe
	TypeGeometry   byte = 0xff
)

// Column flags (manual page "Column Definition Flags").
const (
	FlagNotNull  uint16 = 1 << 0
	FlagUnsigned uint16 = 1 << 5
	FlagBinary   uint16 = 1 << 7
)

// Collation ids, as the charset byte of a login or the charset of a column
// carries them.
const (
	CollationUTF8     uint16 = 33 // utf8mb3_general_ci
	CollationUTF8MB4  uint16 = 45 // utf8mb4_general_ci, known to every server since 5.5.3
	CollationBinary   uint16 = 63
	CollationUTF8MB49 uint16 = 255 // utf8mb4_0900_ai_ci, 8.0 and later
)

// Names of authentication plugins.
const (
	PluginNative      = "mysql_native_password"
	PluginCachingSHA2 = "caching_sha2_password"
	PluginSHA256      = "sha256_password"
	pluginClear       = "mysql_clear_password"
	pluginOld         = "mysql_old_password"
)

// First bytes of replies and of the authentication exchange.
const (
	headerOK         byte = 0x00
	headerMoreData   byte = 0x01 // Protocol::AuthMoreData
	headerNextFactor byte = 0x02 // Protocol::AuthNextFactor
	headerLocalFile  byte = 0xfb
	headerEOF        byte = 0xfe // also Protocol::AuthSwitchRequest
	headerError      byte = 0xff
)
