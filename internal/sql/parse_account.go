package sql

import "strings"

// accountStatement reads the statements about accounts; nil is another statement.
func (p *parser) accountStatement() Statement {
	switch {
	case p.accept("CREATE USER"):
		return p.userStatement(&Users{Verb: CreateUser, Tolerant: p.accept("IF NOT EXISTS")})
	case p.accept("ALTER USER"):
		return p.userStatement(&Users{Verb: AlterUser, Tolerant: p.accept("IF EXISTS")})
	case p.accept("DROP USER"):
		st := &Users{Verb: DropUser, Tolerant: p.accept("IF EXISTS")}
		for more := true; more; more = p.acceptOp(",") {
			st.Users = append(st.Users, User{UserName: p.userName()})
		}
		return st
	case p.accept("GRANT"):
		return p.grant(&Grant{}, "TO")
	case p.accept("REVOKE"):
		st := &Grant{Revoke: true, Tolerant: p.accept("IF EXISTS")}
		return p.grant(st, "FROM")
	}
	return nil
}

// setPassword reads SET PASSWORD [FOR user] = 'password'.
func (p *parser) setPassword() Statement {
	p.expect("SET PASSWORD")
	u := User{UserName: UserName{Current: true}, Identified: true, HasPassword: true}
	if p.accept("FOR") {
		u.UserName = p.userName()
	}
	if p.isWord(0, "TO") && p.isWord(1, "RANDOM") {
		p.fail(errNotSupported("SET PASSWORD TO RANDOM"))
	}
	p.expectOp("=", ":=")
	if p.accept("PASSWORD") { // up to MySQL 5.7, and MariaDB
		p.expectOp("(")
		u.Password = p.take(tokString)
		p.expectOp(")")
	} else {
		u.Password = p.take(tokString)
	}
	return &Users{Verb: AlterUser, Users: []User{u}}
}

// userName reads the name of an account.
func (p *parser) userName() UserName {
	if p.isWord(0, "CURRENT_USER") || p.isWord(0, "USER") && p.look(1).kind == tokOp && p.look(1).text == "(" {
		p.next()
		if p.acceptOp("(") {
			p.expectOp(")")
		}
		return UserName{Current: true}
	}
	n := UserName{User: p.nameOrString(), Host: "%"}
	if p.tok().kind == tokUserVar { // 'user'@'host' looks like a user variable behind a name
		n.Host = strings.ToLower(p.next().text)
	}
	return n
}

// userStatement reads what follows CREATE USER and ALTER USER.
func (p *parser) userStatement(st *Users) Statement {
	for more := true; more; more = p.acceptOp(",") {
		u := User{UserName: p.userName()}
		if p.accept("IDENTIFIED") {
			p.identified(&u)
		}
		st.Users = append(st.Users, u)
	}
	if p.accept("REQUIRE") {
		switch {
		case p.accept("NONE"):
			st.Require = RequireNone
		case p.accept("SSL"):
			st.Require = RequireSSL
		case p.isWord(0, "X509", "CIPHER", "ISSUER", "SUBJECT"):
			p.fail(errNotSupported("REQUIRE " + strings.ToUpper(p.tok().text)))
		default:
			p.syntax()
		}
	}
	for p.tok().kind != tokEOF && p.err == nil {
		switch {
		case p.accept("ACCOUNT LOCK"):
			st.Lock = LockOn
		case p.accept("ACCOUNT UNLOCK"):
			st.Lock = LockOff
		// As it is in any case.
		case p.accept("PASSWORD EXPIRE DEFAULT", "PASSWORD EXPIRE NEVER", "PASSWORD HISTORY DEFAULT",
			"PASSWORD REUSE INTERVAL DEFAULT", "PASSWORD REQUIRE CURRENT DEFAULT"):
		case p.isWord(0, "PASSWORD", "WITH", "DEFAULT", "COMMENT", "ATTRIBUTE", "FAILED_LOGIN_ATTEMPTS", "PASSWORD_LOCK_TIME", "DISCARD", "ADD", "MODIFY"):
			p.fail(errNotSupported("users with " + strings.ToUpper(p.tok().text)))
		default:
			p.syntax()
		}
	}
	return st
}

// identified reads what follows IDENTIFIED.
func (p *parser) identified(u *User) {
	u.Identified = true
	if p.accept("WITH") {
		u.Plugin = strings.ToLower(p.nameOrString())
	}
	switch {
	case p.isWord(0, "BY") && p.isWord(1, "RANDOM"):
		p.fail(errNotSupported("IDENTIFIED BY RANDOM PASSWORD"))
	case p.accept("BY"):
		u.Password, u.HasPassword = p.take(tokString), true
	case p.accept("AS"):
		u.Hash, u.HasHash = p.take(tokString), true
	case u.Plugin == "":
		p.syntax()
	}
	if p.isWord(0, "REPLACE", "RETAIN", "AND") {
		p.fail(errNotSupported("IDENTIFIED … " + strings.ToUpper(p.tok().text)))
	}
}

// grant reads what follows GRANT and REVOKE.
func (p *parser) grant(st *Grant, preposition string) Statement {
	for more := true; more; more = p.acceptOp(",") {
		words := []string{strings.ToUpper(p.take(tokWord))}
		for p.tok().kind == tokWord && !p.isWord(0, "ON", preposition) {
			words = append(words, strings.ToUpper(p.next().text))
		}
		if p.isOp(0, "(") {
			p.fail(errNotSupported("privileges for columns"))
		}
		st.Privileges = append(st.Privileges, strings.Join(words, " "))
	}
	if n := len(st.Privileges); st.Revoke && n == 2 && st.Privileges[1] == "GRANT OPTION" && strings.HasPrefix(st.Privileges[0], "ALL") && p.isWord(0, preposition) {
		st.Privileges = st.Privileges[:1] // REVOKE ALL PRIVILEGES, GRANT OPTION FROM …
	} else {
		p.expect("ON")
		if p.acceptOp("*") {
			if p.acceptOp(".") {
				p.expectOp("*")
			}
		} else {
			p.fail(errNotSupported("privileges for single databases or tables: it has none"))
		}
	}
	p.expect(preposition)
	for more := true; more; more = p.acceptOp(",") {
		st.Users = append(st.Users, p.userName())
	}
	if p.isWord(0, "WITH", "AS", "IDENTIFIED", "REQUIRE", "IGNORE") {
		p.fail(errNotSupported("GRANT … " + strings.ToUpper(p.tok().text)))
	}
	return st
}
