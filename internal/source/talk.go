package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/binlog"
	"kingbus/internal/gtid"
	"kingbus/internal/stream"
	"kingbus/internal/wire"
)

const (
	// queryTimeout bounds the wait for an answer before the dump begins: SHOW
	// BINARY LOGS waits for locks that a busy source holds.
	queryTimeout = 30 * time.Second
	// readBuffer in bytes: a run of small transactions comes in one read.
	readBuffer = 128 << 10
	// replicaVersion is what the connect attributes give as the client library's
	// version.
	replicaVersion = "9.7.4"

	errNoBinaryLogging = 1381 // ER_NO_BINARY_LOGGING
)

// grants is what the account needs, for messages.
func (c *Config) grants() string {
	return fmt.Sprintf("on the source: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'", strings.ReplaceAll(c.User, "'", "''"))
}

// dial connects and logs in.
func dial(ctx context.Context, cfg *Config) (*wire.Client, error) {
	var password []byte
	if cfg.Password != nil {
		var err error
		if password, err = cfg.Password(); err != nil {
			return nil, &Problem{Kind: KindLogin, Reason: "the password for the source cannot be had", Action: "check the configuration", Err: err}
		}
	}
	address := net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	c, err := wire.Dial(ctx, wire.ClientConfig{
		Address: address, Dial: cfg.Dial, User: cfg.User, Password: password,
		Attributes: wire.ReplicaAttributes("mysqld", replicaVersion, ""),
		TLSMode:    cfg.TLSMode, TLS: cfg.TLS, ServerPublicKey: cfg.ServerPublicKey, GetServerPublicKey: cfg.GetServerPublicKey,
		ReadTimeout: queryTimeout, WriteTimeout: queryTimeout, ReadBuffer: readBuffer,
	})
	switch {
	case wire.IsCode(err, wire.ErAccessDenied, wire.ErHostNotPrivileged, wire.ErDBAccessDenied):
		return nil, &Problem{Kind: KindLogin, Reason: "the source refuses the login", Action: "check user, password and the hosts that the account may come from", Err: err}
	case errors.Is(err, wire.ErrInsecurePassword):
		return nil, &Problem{Kind: KindLogin, Reason: "the source wants the password, and the connection is not encrypted", Err: err,
			Action: "use TLS (mode preferred or stricter), or give the source's public key, or allow it to be asked for"}
	case errors.Is(err, wire.ErrTLSRequired):
		return nil, &Problem{Kind: KindLogin, Reason: "TLS is required, and the source does not offer it", Err: err,
			Action: "configure TLS on the source, or use TLS mode preferred or disabled"}
	case errors.Is(err, wire.ErrAuthUnsupported):
		return nil, &Problem{Kind: KindLogin, Reason: "the source wants a way of authentication that is not supported", Err: err,
			Action: "give the account caching_sha2_password, sha256_password or mysql_native_password"}
	case isCertificate(err):
		return nil, &Problem{Kind: KindLogin, Reason: "the source's certificate is not accepted", Err: err,
			Action: "check the CA, and with verify-identity that the certificate names the host " + cfg.Host}
	case wire.IsCode(err, wire.ErSecureTransportRequired):
		return nil, &Problem{Kind: KindLogin, Reason: "the source demands TLS", Action: "use TLS mode preferred or stricter", Err: err}
	}
	return c, err
}

// printable makes text of a peer fit for messages.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 600)], "?"))
}

// talk asks the source what a replica asks, in its order (protocol.md A1), and
// what kingbus needs to know beyond that.
type talk struct {
	ctx context.Context
	c   *wire.Client
	cfg *Config
	// locked: the list of files is not asked for, see errLocked. Else it is waited for so
	// long.
	locked   bool
	patience time.Duration
}

// listTimeout bounds the wait for the list of files where kingbus can do without.
const listTimeout = 3 * time.Second

// errLocked: the source does not give the list of its files. It holds the lock on it
// while it waits to rotate its binlog until all commits are through, and these may wait
// for the acknowledgement of kingbus (semi-sync), which comes only once the binlog is
// asked for (MYSQL_BIN_LOG::new_file_impl in sql/binlog.cc; seen with 9.7).
var errLocked = errors.New("the source does not say which binlog files it has: it seems to rotate its binlog, and to wait for commits meanwhile")

// value returns the first column of the first row as text; unknown is true if
// the source does not know the variable, or has no row.
func (t *talk) value(sql string) (value string, unknown bool, err error) {
	res, err := t.c.Query(t.ctx, sql)
	if wire.IsCode(err, wire.ErUnknownSystemVariable) {
		return "", true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", sql, err)
	}
	if len(res.Rows) == 0 || len(res.Rows[0]) == 0 || res.Rows[0][0] == nil {
		return "", true, nil
	}
	return string(res.Rows[0][0]), false, nil
}

func (t *talk) set(sql string) error {
	if _, err := t.c.Exec(t.ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// facts asks for everything that the plan needs.
func (t *talk) facts() (*facts, error) {
	f := &facts{previous: t.previous}
	if _, _, err := t.value("SELECT UNIX_TIMESTAMP()"); err != nil {
		return nil, err
	}
	id, _, err := t.value("SELECT @@GLOBAL.SERVER_ID")
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("server_id of the source: %w", err)
	}
	f.serverID = uint32(n)
	if f.version, _, err = t.value("SELECT VERSION()"); err != nil {
		return nil, err
	}
	f.maria = binlog.IsMariaDB(f.version)
	if f.maria || !f.atLeast(5, 6) {
		// Neither uuid nor GTIDs of MySQL's kind: it is followed by file and position.
		f.gtidMode = "OFF"
		if !f.atLeast(5, 5) {
			return nil, tooOld(f.version, "")
		}
	} else if err := t.identity(f); err != nil {
		return nil, err
	}
	logBin, _, err := t.value("SELECT @@GLOBAL.LOG_BIN")
	if err != nil {
		return nil, err
	}
	if f.logBin = logBin == "1"; !f.logBin {
		return f, nil
	}
	if f.locked = t.locked; !f.locked {
		if f.files, err = t.binlogs(); err != nil {
			return nil, err
		}
	}
	f.variables, err = t.variables()
	return f, err
}

func tooOld(version, uuid string) error {
	return &Problem{Kind: KindVersion, Reason: fmt.Sprintf("the source is version %s with server_uuid %q; kingbus follows MySQL 5.5 and later, and MariaDB", printable(version), printable(uuid)),
		Action: "name another server"}
}

// identity asks for the uuid and the GTIDs, which servers have from MySQL 5.6 on.
func (t *talk) identity(f *facts) error {
	uuid, unknown, err := t.value("SELECT @@GLOBAL.SERVER_UUID")
	if err != nil {
		return err
	}
	parsed, err := gtid.ParseUUID(uuid)
	if unknown || err != nil {
		return tooOld(f.version, uuid)
	}
	f.uuid = parsed.String()
	mode, _, err := t.value("SELECT @@GLOBAL.GTID_MODE")
	if err != nil {
		return err
	}
	f.gtidMode = strings.ToUpper(mode)
	// What is owned now may be executed the next moment: this order loses none.
	owned, _, err := t.value("SELECT @@GLOBAL.GTID_OWNED")
	if err != nil {
		return err
	}
	f.owned = parseOwned(owned)
	if f.executed, err = t.gtids("SELECT @@GLOBAL.GTID_EXECUTED"); err != nil {
		return err
	}
	f.purged, err = t.gtids("SELECT @@GLOBAL.GTID_PURGED")
	return err
}

// ownedGTIDs matches the part of gtid_owned about one uuid or tag: its numbers, each
// with the thread that owns it (Owned_gtids::to_string in sql/rpl_gtid_owned.cc).
var ownedGTIDs = regexp.MustCompile(`([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?::[a-z_][a-z0-9_]*)?)((?::[0-9]+#[0-9]+)+)`)

// parseOwned reads gtid_owned. What it does not understand is not owned.
func parseOwned(text string) gtid.Set {
	var set gtid.Set
	for _, m := range ownedGTIDs.FindAllStringSubmatch(text, -1) {
		for _, number := range strings.Split(m[2][1:], ":") {
			number, _, _ = strings.Cut(number, "#")
			if g, err := gtid.ParseGTID(m[1] + ":" + number); err == nil {
				set.Add(g)
			}
		}
	}
	return set
}

func (t *talk) gtids(sql string) (gtid.Set, error) {
	text, _, err := t.value(sql)
	if err != nil {
		return gtid.Set{}, err
	}
	set, err := gtid.ParseSet(text)
	if err != nil {
		return gtid.Set{}, fmt.Errorf("%s: %w", sql, err)
	}
	return set, nil
}

func (t *talk) binlogs() ([]logFile, error) {
	ctx, cancel := context.WithTimeoutCause(t.ctx, t.patience, errLocked)
	defer cancel()
	res, err := t.c.Query(ctx, "SHOW BINARY LOGS")
	switch {
	case wire.IsCode(err, errNoBinaryLogging):
		return nil, &Problem{Kind: KindBinlogOff, Reason: "the source writes no binlog", Action: "start it with --log-bin and a --server-id", Err: err}
	case wire.IsCode(err, wire.ErSpecificAccessDenied, wire.ErAccessDenied):
		return nil, &Problem{Kind: KindPrivilege, Reason: "the account may not list the source's binlog files: it lacks REPLICATION CLIENT", Action: t.cfg.grants(), Err: err}
	case err != nil:
		return nil, fmt.Errorf("SHOW BINARY LOGS: %w", err)
	}
	var files []logFile
	for _, row := range res.Rows {
		if len(row) < 2 {
			return nil, errors.New("SHOW BINARY LOGS: a row of less than two columns")
		}
		l := logFile{name: string(row[0])}
		if err := binlog.ValidName(l.name); err != nil {
			return nil, fmt.Errorf("SHOW BINARY LOGS: %w", err)
		}
		if l.size, err = strconv.ParseUint(string(row[1]), 10, 64); err != nil {
			return nil, fmt.Errorf("SHOW BINARY LOGS: %w", err)
		}
		files = append(files, l)
	}
	return files, nil
}

// previous reads the PREVIOUS_GTIDS of a file, which follow its format
// description.
func (t *talk) previous(file string) (gtid.Set, bool, error) {
	sql := "SHOW BINLOG EVENTS IN '" + strings.ReplaceAll(file, "'", "''") + "' LIMIT 2"
	res, err := t.c.Query(t.ctx, sql)
	if wire.IsCode(err, wire.ErSpecificAccessDenied, wire.ErAccessDenied) {
		return gtid.Set{}, false, &Problem{Kind: KindPrivilege, Reason: "the account may not look into the source's binlog files: it lacks REPLICATION SLAVE", Action: t.cfg.grants(), Err: err}
	}
	if err != nil {
		return gtid.Set{}, false, fmt.Errorf("%s: %w", sql, err)
	}
	if len(res.Rows) < 2 || len(res.Rows[1]) < 6 || string(res.Rows[1][2]) != binlog.TypePreviousGTIDs.String() {
		return gtid.Set{}, false, nil
	}
	set, err := gtid.ParseSet(string(res.Rows[1][5]))
	if err != nil {
		return gtid.Set{}, false, fmt.Errorf("%s: %w", sql, err)
	}
	return set, true, nil
}

// Bounds of the variables that are kept.
const (
	maxVariables     = 2000
	maxVariableValue = 2 << 10 // bytes
	maxVariableBytes = 256 << 10
)

// variables reads the global variables, without those that say how the source's
// machine looks, are secret, or change all the time.
func (t *talk) variables() (map[string]string, error) {
	res, err := t.c.Query(t.ctx, "SHOW GLOBAL VARIABLES")
	if err != nil {
		return nil, fmt.Errorf("SHOW GLOBAL VARIABLES: %w", err)
	}
	out := map[string]string{}
	total := 0
	for _, row := range res.Rows {
		if len(row) < 2 {
			continue
		}
		name, value := strings.ToLower(string(row[0])), string(row[1])
		total += len(name) + len(value)
		if len(out) >= maxVariables || total > maxVariableBytes {
			break
		}
		if len(value) <= maxVariableValue && servable(name) {
			out[name] = value
		}
	}
	return out, nil
}

// servable tells whether a variable is fit to be presented by kingbus as its
// own.
func servable(name string) bool {
	switch name {
	case "gtid_executed", "gtid_purged", "gtid_owned", "socket", "pid_file", "hostname", "bind_address", "admin_address",
		"port", "admin_port", "general_log", "slow_query_log", "timestamp", "secure_file_priv", "plugin_load", "plugin_load_add":
		return false
	}
	for _, prefix := range []string{"innodb_", "performance_schema", "mysqlx", "wsrep_", "aria_", "spider_", "myisam_", "ssl_", "admin_ssl", "admin_tls", "tls_", "report_", "init_",
		"group_replication", "caching_sha2", "sha256_password", "validate_password", "relay_log", "replica_", "slave_", "ft_", "key_cache", "keyring", "authentication_", "audit"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	for _, part := range []string{"password", "secret", "_key", "dir", "_file", "_path", "_index", "_basename", "_hosts"} {
		if strings.Contains(name, part) {
			return false
		}
	}
	return true
}

// present tells the source how the stream wants to be served: heartbeats and
// checksums. It returns the algorithm of what comes before the first format
// description.
func (t *talk) present(maria bool) (binlog.Checksum, error) {
	if maria { // else it sends events that look like those of MySQL 5.1
		if err := t.set("SET @mariadb_slave_capability = 4"); err != nil {
			return 0, err
		}
	}
	ns := t.cfg.Heartbeat.Nanoseconds()
	if err := t.set(fmt.Sprintf("SET @master_heartbeat_period = %d, @source_heartbeat_period = %d", ns, ns)); err != nil {
		return 0, err
	}
	err := t.set("SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum")
	if wire.IsCode(err, wire.ErUnknownSystemVariable) {
		return binlog.ChecksumNone, nil // 5.5
	}
	if err != nil {
		return 0, err
	}
	sum, _, err := t.value("SELECT @source_binlog_checksum")
	if err != nil {
		return 0, err
	}
	switch strings.ToUpper(sum) {
	case "NONE":
		return binlog.ChecksumNone, nil
	case "CRC32":
		return binlog.ChecksumCRC32, nil
	}
	return 0, fmt.Errorf("the source has an unknown binlog_checksum %q", printable(sum))
}

// register says who we are.
func (t *talk) register(id stream.Identity) error {
	uuid, err := gtid.ParseUUID(id.ServerUUID)
	if err != nil {
		return fmt.Errorf("identity of the cluster: %w", err)
	}
	if err := t.set(fmt.Sprintf("SET @slave_uuid = '%s', @replica_uuid = '%s'", uuid, uuid)); err != nil {
		return err
	}
	_, err = t.c.Do(t.ctx, registration(id.ServerID, t.cfg.ReportHost, t.cfg.ReportPort))
	if wire.IsCode(err, wire.ErAccessDenied, wire.ErSpecificAccessDenied) {
		return &Problem{Kind: KindPrivilege, Reason: "the account may not replicate: it lacks REPLICATION SLAVE", Action: t.cfg.grants(), Err: err}
	}
	if err != nil {
		return fmt.Errorf("register as a replica: %w", err)
	}
	return nil
}

// isCertificate tells whether a login failed at the source's certificate.
func isCertificate(err error) bool {
	var (
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid)
}

func tlsName(version uint16) string { return tls.VersionName(version) }
