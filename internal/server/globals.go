package server

import (
	"context"
	"slices"
	"strings"

	"kingbus/internal/account"
	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// Globals are the variables that SET GLOBAL and SET PERSIST change, for all nodes and for
// good; *variable.Store is one.
type Globals interface {
	// Variables returns them with their values.
	Variables() []sql.Variable
	// Set returns those that were set, by name.
	Set() (names []string, values []sql.Value)
	// SetGlobal sets values that have been checked, all or none. Other names do nothing.
	SetGlobal(ctx context.Context, values []sql.GlobalValue) error
	// Reset takes back what was set: of one variable, or of all if name is "".
	Reset(ctx context.Context, name string) error
}

// Error codes of MySQL's about variables and plugins (ER_…).
const (
	errCannotOpenLibrary = 1126
	errNoSuchSymbol      = 1127
	errPluginExists      = 1125
	errNotPersisted      = 3615
)

// mayChangeGlobals checks what SET GLOBAL needs.
func (c *session) mayChangeGlobals() error {
	if c.may(account.Super) != nil {
		return wire.Errorf(wire.ErSpecificAccessDenied, "Access denied; you need (at least one of) the SUPER or SYSTEM_VARIABLES_ADMIN privilege(s) for this operation")
	}
	return nil
}

// SetGlobal implements sql.Env.
func (c *session) SetGlobal(values []sql.GlobalValue) error {
	if err := c.mayChangeGlobals(); err != nil {
		return err
	}
	return c.setGlobal(c.ctx, values)
}

func (c *session) setGlobal(ctx context.Context, values []sql.GlobalValue) error {
	if c.server.cfg.Globals == nil {
		return nil // what can be set then has one value only
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	err := c.server.cfg.Globals.SetGlobal(ctx, values)
	if err == nil {
		for _, v := range values {
			text := v.Value.Text()
			if v.Default {
				text = "DEFAULT"
			}
			c.log.Info("a variable was changed for all nodes", "variable", v.Name, "value", text)
		}
	}
	return c.changed(err)
}

// resetPersist is RESET PERSIST.
func (c *session) resetPersist(ctx context.Context, st *sql.ResetPersist) error {
	if err := c.mayChangeGlobals(); err != nil {
		return err
	}
	if c.server.cfg.Globals == nil {
		return nil
	}
	name := st.Name
	if name != "" {
		// Any of the names that a variable has.
		if v, ok := c.server.variables().Lookup(name); ok {
			name = v.Name
		}
		if names, _ := c.server.cfg.Globals.Set(); !slices.Contains(names, name) {
			if st.Tolerant {
				return nil
			}
			return wire.Errorf(errNotPersisted, "Variable %s does not exist in persisted config file", clip(st.Name, 64))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	err := c.server.cfg.Globals.Reset(ctx, name)
	if err == nil {
		c.log.Info("variables are as the settings of each node say", "variable", name)
	}
	return c.changed(err)
}

// plugin is one that INSTALL PLUGIN knows: a role in semi-synchronous replication, which is
// on while the plugin is installed.
type plugin struct{ name, old, library, oldLibrary, variable string }

var semiSyncPlugins = [...]plugin{
	{"rpl_semi_sync_source", "rpl_semi_sync_master", "semisync_source.so", "semisync_master.so", "rpl_semi_sync_source_enabled"},
	{"rpl_semi_sync_replica", "rpl_semi_sync_slave", "semisync_replica.so", "semisync_slave.so", "rpl_semi_sync_replica_enabled"},
}

// installed tells whether the role is on.
func (c *session) installed(p plugin) bool {
	v, ok := c.server.variables().Lookup(p.variable)
	return ok && v.Get != nil && v.Get() == sql.Bool(true)
}

// installPlugin is INSTALL PLUGIN and UNINSTALL PLUGIN.
func (c *session) installPlugin(ctx context.Context, st *sql.Plugin) error {
	if c.may(account.Super) != nil {
		return c.noTableAccess(map[bool]string{false: "INSERT", true: "DELETE"}[st.Uninstall], "plugin")
	}
	i := slices.IndexFunc(semiSyncPlugins[:], func(p plugin) bool { return strings.EqualFold(st.Name, p.name) || strings.EqualFold(st.Name, p.old) })
	if i < 0 || c.server.cfg.Globals == nil {
		if st.Uninstall {
			return wire.Errorf(wire.ErSPDoesNotExist, "PLUGIN %s does not exist", clip(st.Name, 64))
		}
		return wire.Errorf(errCannotOpenLibrary, "Can't open shared library '%s' (errno: 0 kingbus knows the plugins of semi-synchronous replication only)", clip(st.Library, 64))
	}
	p := semiSyncPlugins[i]
	library := p.library
	if strings.EqualFold(st.Name, p.old) {
		library = p.oldLibrary
	}
	switch on := c.installed(p); {
	case st.Uninstall && !on:
		return wire.Errorf(wire.ErSPDoesNotExist, "PLUGIN %s does not exist", clip(st.Name, 64))
	case !st.Uninstall && on:
		return wire.Errorf(errPluginExists, "Function '%s' already exists", clip(st.Name, 64))
	case !st.Uninstall && st.Library != library:
		return wire.Errorf(errNoSuchSymbol, "Can't find symbol '%s' in library", clip(st.Name, 64))
	}
	return c.setGlobal(ctx, []sql.GlobalValue{{Name: p.variable, Value: sql.Bool(!st.Uninstall)}})
}

// noTableAccess is the refusal of MySQL for a table that a user may not use so.
func (c *session) noTableAccess(privilege, table string) error {
	return wire.Errorf(wire.ErTableAccessDenied, "%s command denied to user '%s'@'%s' for table '%s'", privilege, c.ws.User, c.ws.Host, table)
}

// showPlugins lists what of MySQL's plugins is part of kingbus.
func (c *session) showPlugins() *sql.ResultSet {
	rs := result(schemaText("Name", 64), schemaText("Status", 10), schemaText("Type", 80), nullable(schemaText("Library", 64)), nullable(schemaText("License", 80)))
	row := func(name, kind string, library sql.Value) {
		rs.Rows = append(rs.Rows, []sql.Value{sql.String(name), sql.String("ACTIVE"), sql.String(kind), library, sql.String("GPL")})
	}
	row("binlog", "STORAGE ENGINE", sql.Null)
	row("caching_sha2_password", "AUTHENTICATION", sql.Null)
	if c.server.cfg.AllowNative {
		row("mysql_native_password", "AUTHENTICATION", sql.Null)
	}
	for _, p := range semiSyncPlugins {
		if c.installed(p) {
			row(p.name, "REPLICATION", sql.String(p.library))
		}
	}
	return rs
}
