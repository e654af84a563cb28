package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"kingbus/internal/semisync"
)

// maxFile bounds the YAML file in bytes.
const maxFile = 1 << 20

// Input is where settings are looked for.
type Input struct {
	// Flags are those that were given, by key.
	Flags map[string]string
	// Environ is the environment as os.Environ has it.
	Environ []string
	// File names the YAML file; "" means KINGBUS_CONFIG, or none.
	File string
	// Fallback names a file that is read, if it is there, when there is neither File, nor a flag, nor
	// a variable: settings of two nodes are not mixed. "" is none.
	Fallback string
}

// Load reads all settings and checks each for itself. Passwords are not read
// yet, and nothing is demanded: see Config.CheckServe.
//
// An error names the flag, the variable, or the file with its line.
func Load(in Input) (*Config, error) {
	found, err := in.environment()
	if err != nil {
		return nil, err
	}
	file := in.File
	if file == "" {
		file = found["config"]
	}
	delete(found, "config")
	if file == "" && len(in.Flags)+len(found) == 0 && in.Fallback != "" {
		if _, err := os.Stat(in.Fallback); !errors.Is(err, fs.ErrNotExist) {
			file = in.Fallback
		}
	}
	inFile := &settingsFile{}
	if file != "" {
		if inFile, err = readFile(file); err != nil {
			return nil, err
		}
	}
	c := &Config{passwords: map[string]setValue{}}
	for _, s := range Settings() {
		v := setValue{key: s.Key, text: s.Default}
		explain := func(err error) error { return fmt.Errorf("default of %s: %w", s.Key, err) }
		if f, ok := inFile.values[s.Key]; ok {
			v.text, v.origin = f.text, fromFile
			explain = func(err error) error { return inFile.explain(s.Key, err) }
		}
		if e, ok := found[s.Key]; ok {
			v.text, v.origin = e, fromEnv
			explain = func(err error) error { return fmt.Errorf("%s: %w", s.Env(), err) }
		}
		if f, ok := in.Flags[s.Key]; ok {
			v.text, v.origin = f, fromFlag
			explain = func(err error) error { return fmt.Errorf("--%s: %w", s.Key, err) }
		}
		if v.origin == fromDefault && v.text == "" {
			continue
		}
		if err := s.set(c, v); err != nil {
			return nil, explain(err)
		}
	}
	return c, nil
}

// environment returns the settings in the environment by key, and the name of
// the file as "config".
func (in Input) environment() (map[string]string, error) {
	known := map[string]string{envPrefix + "CONFIG": "config"}
	for _, s := range Settings() {
		known[s.Env()] = s.Key
	}
	found := map[string]string{}
	var unknown []string
	for _, kv := range in.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		switch key, ok := known[name]; {
		case ok:
			found[key] = value
		case !notOurs(name):
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		return nil, fmt.Errorf("environment variable %s is not a setting%s; unset it, or see `kingbus serve --help`", unknown[0], suggest(unknown[0], names))
	}
	return found, nil
}

// kubernetesRE matches what Kubernetes puts into the environment of every
// container for a service whose name begins with "kingbus".
var kubernetesRE = regexp.MustCompile(`^KINGBUS_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// notOurs tells whether a variable with our prefix belongs to somebody else: to
// the tests, or to Kubernetes.
func notOurs(name string) bool {
	return strings.HasPrefix(name, envPrefix+"TEST_") || name == envPrefix+"CACHE" || kubernetesRE.MatchString(name)
}

// password notes a setting that CheckServe resolves.
func password(c *Config, v setValue) error {
	c.passwords[v.key] = v
	return nil
}

// CheckServe demands what `kingbus serve` needs, reads the passwords, and
// returns warnings for the log.
func (c *Config) CheckServe() (warnings []string, err error) {
	if c.DataDir == "" {
		return nil, errors.New("no data folder: give --data-dir DIR (or KINGBUS_DATA_DIR, or data-dir in the file)")
	}
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if warnings, err = c.checkPeers(); err != nil {
		return nil, err
	}
	var warning string
	if c.Source.Password, warning, err = c.readPassword("source"); err != nil {
		return nil, err
	}
	warnings = append(warnings, warning)
	if c.Replica.Password, warning, err = c.readPassword("replica"); err != nil {
		return nil, err
	}
	warnings = append(warnings, warning)
	if c.Source.Host != "" && c.Source.Password.IsZero() {
		return nil, errors.New("no password for the source: give --source-password-file FILE, or set KINGBUS_SOURCE_PASSWORD")
	}
	if c.Source.Host == "" && !c.Source.Password.IsZero() {
		return nil, errors.New("there is a password for the source, but no source: give --source mysql://USER@HOST:PORT")
	}
	if (c.Replica.User == "") != c.Replica.Password.IsZero() {
		return nil, errors.New("replicas need a user and a password to log in with: give both --replica-user NAME and --replica-password-file FILE (or KINGBUS_REPLICA_PASSWORD), or neither")
	}
	node := c.Admin
	node.URL = ""
	if err := node.check(); err != nil {
		return nil, err
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return nil, errors.New("--tls-cert and --tls-key must be given together")
	}
	if (c.Source.TLSFiles.Cert == "") != (c.Source.TLSFiles.Key == "") {
		return nil, errors.New("--source-tls-cert and --source-tls-key must be given together")
	}
	if c.Source.Acknowledge.Replicas > 0 && c.Source.SemiSync == semisync.ModeOff {
		return nil, fmt.Errorf("--acknowledge=quorum+%d with --semi-sync=off: nothing is acknowledged then; use --semi-sync=auto or on", c.Source.Acknowledge.Replicas)
	}
	return slices.DeleteFunc(warnings, func(w string) bool { return w == "" }), nil
}

// ReadSourcePassword reads the source's password again, so that a file that was
// changed counts from the next login on.
func (c *Config) ReadSourcePassword() (Secret, error) {
	secret, _, err := c.readPassword("source")
	return secret, err
}

// maxPassword is the longest password that MySQL's plugins take, in bytes.
const maxPassword = 256

// readPassword resolves who's password, from the file or the environment: the
// one with the higher rank wins.
func (c *Config) readPassword(who string) (secret Secret, warning string, err error) {
	key := who + "-password"
	plain, hasPlain := c.passwords[key]
	file, hasFile := c.passwords[key+"-file"]
	if hasPlain && hasFile && plain.origin == file.origin {
		return Secret{}, "", fmt.Errorf("both KINGBUS_%s_PASSWORD and KINGBUS_%[1]s_PASSWORD_FILE are set: keep one of them", strings.ToUpper(who))
	}
	text := plain.text
	if hasFile && (!hasPlain || file.origin > plain.origin) {
		if text, warning, err = readSecretFile(file.text); err != nil {
			return Secret{}, "", fmt.Errorf("password of the %s: %w", who, err)
		}
	} else if !hasPlain {
		return Secret{}, "", nil
	}
	switch {
	case text == "":
		return Secret{}, "", fmt.Errorf("password of the %s: it is empty; accounts without a password are not for replication", who)
	case len(text) > maxPassword:
		return Secret{}, "", fmt.Errorf("password of the %s: it is longer than the %d bytes that MySQL takes", who, maxPassword)
	case strings.ContainsAny(text, "\x00\r\n"):
		return Secret{}, "", fmt.Errorf("password of the %s: it has a NUL or a line break in it; a password is one line", who)
	}
	return Secret{text}, warning, nil
}

// readSecretFile reads a password file and takes the line end off. A file that
// everybody may read is only warned of: container platforms mount secrets like
// that, and to refuse would drive people to put passwords elsewhere.
func readSecretFile(name string) (text, warning string, err error) {
	if name == "" {
		return "", "", errors.New("the name of its file is empty")
	}
	f, err := os.Open(name)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", "", err
	}
	if info.IsDir() {
		return "", "", fmt.Errorf("%s is a folder, not a file", name)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
		warning = fmt.Sprintf("every user of this machine may read the password file %s: run chmod 600 on it", name)
	}
	b := make([]byte, 4096)
	n, err := readFull(f, b)
	if err != nil {
		return "", "", err
	}
	text = strings.TrimSuffix(string(b[:n]), "\n")
	return strings.TrimSuffix(text, "\r"), warning, nil
}
