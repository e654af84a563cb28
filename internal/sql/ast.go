package sql

// Statement is what Parse returns: one of the pointer types below.
type Statement interface{ statement() }

// Scope says which value of a system variable is meant.
type Scope uint8

// The scopes. ScopeNone is what a client left open: the session's value if there is one, else the global one.
const (
	ScopeNone Scope = iota
	ScopeSession
	ScopeGlobal
	ScopePersist
	ScopePersistOnly
)

type (
	// Empty is a query of comments only; MySQL answers OK.
	Empty struct{}

	// Select is SELECT with at most one table.
	Select struct {
		Distinct bool
		Items    []SelectItem
		From     *Table // nil: no FROM, or FROM DUAL
		Alias    string // of the table
		Where    Expr   // or nil
		Order    []Order
		Limit    *Limit // or nil
		rest     *Error // about what is behind a table; it counts if there is such a table
	}

	// Do is DO expr, …: evaluates and answers OK.
	Do struct{ Exprs []Expr }

	// Set is SET with one or more assignments of any kind.
	Set struct{ Items []SetItem }

	// Show is any SHOW statement that we know.
	Show struct {
		What    ShowWhat
		Old     bool   // spelled with MASTER or SLAVE: columns have to be named in those words
		Full    bool   // SHOW FULL PROCESSLIST
		Scope   Scope  // of VARIABLES and STATUS
		Filter  Expr   // WHERE, or LIKE, which looks at column ""; or nil
		Limit   *Limit // of WARNINGS, ERRORS and BINLOG EVENTS, or nil
		File    string // BINLOG EVENTS IN
		From    uint64 // BINLOG EVENTS FROM; 0 if not given
		Channel string // REPLICA STATUS FOR CHANNEL
		User    string // GRANTS FOR; "" means the current user
		Host    string // GRANTS FOR user@host
	}

	// Kill is KILL [CONNECTION | QUERY] id.
	Kill struct {
		Query bool
		ID    Expr
	}

	// Use is USE database.
	Use struct{ Database string }

	// Transaction is BEGIN, START TRANSACTION, COMMIT or ROLLBACK, with whatever options: without tables they are all
	// the same.
	Transaction struct{ Verb string } // "BEGIN", "COMMIT" or "ROLLBACK"

	// Flush is FLUSH what; What is upper case, e.g. "BINARY LOGS".
	Flush struct{ What string }

	// Users is CREATE USER, ALTER USER or DROP USER, or SET PASSWORD, which is ALTER USER.
	Users struct {
		Verb     UserVerb
		Tolerant bool // IF EXISTS, IF NOT EXISTS
		Users    []User
		Require  UserRequire
		Lock     UserLock
	}

	// Grant is GRANT and REVOKE of global privileges, whose names are upper case.
	Grant struct {
		Revoke     bool
		Tolerant   bool // IF EXISTS
		Privileges []string
		Users      []UserName
	}

	// ChangeSource is CHANGE REPLICATION SOURCE TO … and CHANGE MASTER TO …. Names of options
	// are upper case, in MySQL's current words (MASTER_HOST is SOURCE_HOST).
	ChangeSource struct {
		Options []SourceOption
		Channel string
	}

	// ReplicaThreads is START REPLICA and STOP REPLICA. Neither IO nor SQL: both.
	ReplicaThreads struct {
		Stop    bool
		IO, SQL bool
		Until   []SourceOption // UNTIL …
		Login   bool           // USER=… and so on
		Channel string
	}

	// ResetReplica is RESET REPLICA [ALL].
	ResetReplica struct {
		All     bool
		Channel string
	}

	// Purge is PURGE BINARY LOGS TO a file, or BEFORE a time.
	Purge struct {
		To     string
		Before Expr // nil: To is given
	}

	// Plugin is INSTALL PLUGIN and UNINSTALL PLUGIN.
	Plugin struct {
		Uninstall bool
		Name      string
		Library   string // SONAME
	}

	// ResetPersist is RESET PERSIST [[IF EXISTS] Name]; Name "" is all of them.
	ResetPersist struct {
		Name     string
		Tolerant bool
	}

	// Unsupported is a statement of MySQL's that is recognized by its first words only.
	Unsupported struct{ Verb string } // upper case, e.g. "CHANGE REPLICATION SOURCE", "INSERT"
)

func (*Empty) statement()       {}
func (*Select) statement()      {}
func (*Do) statement()          {}
func (*Set) statement()         {}
func (*Show) statement()        {}
func (*Kill) statement()        {}
func (*Use) statement()         {}
func (*Transaction) statement() {}
func (*Flush) statement()       {}
func (*Users) statement()       {}
func (*Grant) statement()       {}
func (*Purge) statement()       {}

func (*ChangeSource) statement()   {}
func (*ReplicaThreads) statement() {}
func (*ResetReplica) statement()   {}

// SourceOption is an option of CHANGE REPLICATION SOURCE. Value is text, a number or NULL; a
// bare word is text in upper case, a list in parentheses the text of it.
type SourceOption struct {
	Name  string
	Value Value
}

func (*Plugin) statement()       {}
func (*ResetPersist) statement() {}
func (*Unsupported) statement()  {}

// UserName is the name of an account; Host is in small letters.
type UserName struct {
	User, Host string
	Current    bool // USER(), CURRENT_USER: that of the session
}

// User is an account with how it logs in, as far as that is given.
type User struct {
	UserName
	Identified  bool
	Plugin      string // small letters; "" if not given
	Password    string
	HasPassword bool
	Hash        string
	HasHash     bool
}

// UserVerb is what a Users statement does.
type UserVerb string

// The verbs.
const (
	CreateUser UserVerb = "CREATE USER"
	AlterUser  UserVerb = "ALTER USER"
	DropUser   UserVerb = "DROP USER"
)

// UserRequire is what is required of the connection.
type UserRequire uint8

// The requirements; zero: nothing was said.
const (
	RequireNone UserRequire = iota + 1
	RequireSSL
)

// UserLock says whether the account is locked; zero: nothing was said.
type UserLock uint8

// The states.
const (
	LockOn UserLock = iota + 1
	LockOff
)

// Table is a table's name; Schema may be empty.
type Table struct{ Schema, Name string }

// Limit is LIMIT [Offset,] Count.
type Limit struct{ Offset, Count uint64 }

// Order is a part of ORDER BY.
type Order struct {
	By         Expr // a literal is the number of a column
	Descending bool
}

// SelectItem is a column of a SELECT.
type SelectItem struct {
	Expr  Expr   // nil: *, of Table if that is not empty
	Name  string // the alias, or what MySQL names the column: mostly the text of the expression
	Table string
}

// ShowWhat is what a SHOW statement asks for, in MySQL's current words.
type ShowWhat string

// What can be shown.
const (
	ShowVariables     ShowWhat = "VARIABLES"
	ShowStatus        ShowWhat = "STATUS"
	ShowWarnings      ShowWhat = "WARNINGS"
	ShowErrors        ShowWhat = "ERRORS"
	ShowCountWarnings ShowWhat = "COUNT(*) WARNINGS"
	ShowCountErrors   ShowWhat = "COUNT(*) ERRORS"
	ShowDatabases     ShowWhat = "DATABASES"
	ShowTables        ShowWhat = "TABLES"
	ShowProcesslist   ShowWhat = "PROCESSLIST"
	ShowEngines       ShowWhat = "ENGINES"
	ShowPlugins       ShowWhat = "PLUGINS"
	ShowCollation     ShowWhat = "COLLATION"
	ShowCharacterSet  ShowWhat = "CHARACTER SET"
	ShowLogStatus     ShowWhat = "BINARY LOG STATUS"
	ShowBinaryLogs    ShowWhat = "BINARY LOGS"
	ShowBinlogEvents  ShowWhat = "BINLOG EVENTS"
	ShowReplicas      ShowWhat = "REPLICAS"
	ShowReplicaStatus ShowWhat = "REPLICA STATUS"
	ShowGrants        ShowWhat = "GRANTS"
)

// SetKind says what an item of SET assigns.
type SetKind uint8

// The kinds of SET items.
const (
	SetUser         SetKind = iota // @Name = Value
	SetSystem                      // [Scope] Name = Value; Value nil means DEFAULT
	SetNames                       // NAMES Name [COLLATE Collation]; Name "" means DEFAULT
	SetCharacterSet                // CHARACTER SET Name; Name "" means DEFAULT
)

// SetItem is one assignment.
type SetItem struct {
	Kind      SetKind
	Scope     Scope
	Name      string
	Collation string
	Value     Expr
}

// Expr is an expression: one of the pointer types below.
type Expr interface{ expr() }

type (
	// Literal is a constant.
	Literal struct{ Value Value }
	// UserVar is @Name.
	UserVar struct{ Name string }
	// SysVar is @@[Scope.]Name.
	SysVar struct {
		Scope Scope
		Name  string
	}
	// ColumnRef is a column's name, or a bare word on the right-hand side of SET; Table is its qualifier or "". The
	// name "" is the first column of a SHOW.
	ColumnRef struct{ Table, Name string }
	// Op is an operator with its operands, in upper case: = <=> < <= > >= <> + - * AND OR NOT IN LIKE BETWEEN, "IS NULL", "IS TRUE", "IS FALSE", "CAST CHAR", "CAST SIGNED", "CAST UNSIGNED"; INTERVAL, of a number and its unit; and CASE, whose operands are the
	// one behind CASE or nil, then each WHEN and its THEN, and the one behind ELSE or nil.
	Op struct {
		Name string
		Args []Expr
	}
	// Call is a function call.
	Call struct {
		Schema, Name string
		Args         []Expr
	}
	// Assign is @Name := X.
	Assign struct {
		Name string
		X    Expr
	}
)

func (*Literal) expr()   {}
func (*UserVar) expr()   {}
func (*SysVar) expr()    {}
func (*ColumnRef) expr() {}
func (*Op) expr()        {}
func (*Call) expr()      {}
func (*Assign) expr()    {}
