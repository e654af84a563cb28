package sql

import (
	"slices"
	"strings"
)

// source is the table that a SELECT reads: what Env has of it.
type source struct {
	name  Table
	alias string
	rows  *ResultSet
}

// is tells whether a column's qualifier means it.
func (t *source) is(qualifier string) bool {
	if t.alias != "" {
		return qualifier == t.alias
	}
	return strings.EqualFold(qualifier, t.name.Name)
}

// selectTable answers a SELECT with a table.
func (s *Session) selectTable(ev *evaluation, q *Select) (*ResultSet, error) {
	name := *q.From
	if name.Schema == "" {
		name.Schema = s.env.Database()
	}
	if name.Schema == "" {
		return nil, Errorf(1046, "3D000", "No database selected")
	}
	table, err := s.env.Table(name)
	switch {
	case err != nil:
		return nil, err
	case table == nil:
		return nil, Errorf(1146, "42S02", "Table '%s.%s' doesn't exist", clip(name.Schema, 256), clip(name.Name, 256))
	case q.rest != nil:
		return nil, q.rest
	}
	ev.table, ev.columns = &source{name, q.Alias, table}, table.Columns
	rows, err := ev.where(q.Where, table.Rows)
	if err != nil {
		return nil, err
	}
	items, err := ev.items(q.Items)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(items, func(i SelectItem) bool { return aggregated(i.Expr) }) {
		ev.group, rows = rows, [][]Value{make([]Value, len(table.Columns))} // one row, of all of them
		for i, item := range items {
			if c := bareColumn(item.Expr); c != nil {
				at, err := ev.find(c)
				if err != nil {
					return nil, err
				}
				return nil, Errorf(1140, "42000", "In aggregated query without GROUP BY, expression #%d of SELECT list contains nonaggregated column '%s.%s.%s'; this is incompatible with sql_mode=only_full_group_by",
					i+1, name.Schema, name.Name, ev.columns[at].Name)
			}
		}
	}
	rs := &ResultSet{}
	for _, row := range rows {
		ev.row, ev.clause = row, "field list"
		out := make([]Value, 0, len(items))
		for _, item := range items {
			v, err := ev.eval(item.Expr)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		rs.Rows = append(rs.Rows, out)
	}
	if rs.Columns, err = ev.describe(items, rs.Rows); err != nil {
		return nil, err
	}
	if len(q.Order) > 0 {
		var keys [][]Value
		for i, row := range rows {
			ev.row = row
			key, err := ev.order(q.Order, items, rs.Rows[i])
			if err != nil {
				return nil, err
			}
			keys = append(keys, key)
		}
		if err := ev.spend(len(rs.Rows) * 256); err != nil {
			return nil, err
		}
		rs.sort(q.Order, keys)
	}
	if q.Distinct {
		rs.distinct()
	}
	rs.Rows = q.Limit.apply(rs.Rows)
	s.Localize(rs)
	return rs, nil
}

// where keeps the rows of which a condition is true.
func (ev *evaluation) where(filter Expr, rows [][]Value) (kept [][]Value, err error) {
	if filter == nil {
		return rows, nil
	}
	ev.clause = "where clause"
	if len(rows) == 0 { // unknown columns are one all the same
		ev.row = make([]Value, len(ev.columns))
		_, err := ev.eval(filter)
		return nil, err
	}
	for _, row := range rows {
		ev.row = row
		v, err := ev.eval(filter)
		if err != nil {
			return nil, err
		}
		if v.isTrue() {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

// items replaces * by the columns.
func (ev *evaluation) items(list []SelectItem) (out []SelectItem, err error) {
	for _, item := range list {
		if item.Expr != nil {
			out = append(out, item)
			continue
		}
		if item.Table != "" && !ev.table.is(item.Table) {
			return nil, Errorf(1051, "42S02", "Unknown table '%s'", clip(item.Table, 256))
		}
		for _, c := range ev.columns {
			out = append(out, SelectItem{Expr: &ColumnRef{Name: c.Name}, Name: c.Name})
		}
	}
	return out, nil
}

// describe returns the columns of the result: those of the table as they are, others by all
// rows, whose values it makes those of one type.
func (ev *evaluation) describe(items []SelectItem, rows [][]Value) ([]Column, error) {
	if len(rows) == 0 { // unknown columns are one all the same
		ev.row, ev.clause = make([]Value, len(ev.columns)), "field list"
		for _, item := range items {
			if _, err := ev.eval(item.Expr); err != nil {
				return nil, err
			}
		}
	}
	var out []Column
	for i, item := range items {
		if ref, ok := item.Expr.(*ColumnRef); ok {
			at, err := ev.find(ref)
			if err != nil {
				return nil, err
			}
			c := ev.columns[at]
			c.Name = item.Name
			out = append(out, c)
			continue
		}
		c := ev.column(item.Name, item.Expr, ev.settle(item.Expr, rows, i))
		if a, is := isAggregate(item.Expr); is && (strings.EqualFold(a.Name, "MIN") || strings.EqualFold(a.Name, "MAX")) {
			if ref, ok := a.Args[0].(*ColumnRef); ok {
				at, err := ev.find(ref)
				if err != nil {
					return nil, err
				}
				c = ev.columns[at]
				c.Name, c.Nullable, c.Stored, c.Flags = item.Name, true, false, 0
				if !c.Binary() {
					c.Decimals = 31
				}
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// order returns what a row is sorted by: its columns by number or by the name they have in
// the result, or expressions.
func (ev *evaluation) order(by []Order, items []SelectItem, row []Value) (key []Value, err error) {
	ev.clause = "order clause"
	for _, o := range by {
		at := -1
		switch e := o.By.(type) {
		case *Literal:
			if e.Value.kind != KindInt && e.Value.kind != KindUint { // a constant brings no order
				break
			}
			n, ok := e.Value.Uint64()
			if !ok || n == 0 || n > uint64(len(row)) {
				return nil, Errorf(1054, "42S22", "Unknown column '%s' in 'order clause'", clip(e.Value.Text(), 64))
			}
			at = int(n) - 1
		case *ColumnRef:
			at = slices.IndexFunc(items, func(i SelectItem) bool { return e.Table == "" && strings.EqualFold(i.Name, e.Name) })
		}
		var v Value
		if at >= 0 {
			v = row[at]
		} else if v, err = ev.eval(o.By); err != nil {
			return nil, err
		}
		key = append(key, v)
	}
	return key, nil
}

// sort puts the rows in order; NULL comes first.
func (rs *ResultSet) sort(by []Order, keys [][]Value) {
	index := make([]int, len(keys))
	for i := range index {
		index[i] = i
	}
	slices.SortStableFunc(index, func(a, b int) int {
		for i, o := range by {
			x, y := keys[a][i], keys[b][i]
			c := 0
			switch {
			case x.IsNull() && y.IsNull():
			case x.IsNull():
				c = -1
			case y.IsNull():
				c = 1
			default:
				c = compare(x, y)
			}
			if o.Descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	rows := make([][]Value, len(index))
	for i, from := range index {
		rows[i] = rs.Rows[from]
	}
	rs.Rows = rows
}

// distinct keeps the first of equal rows.
func (rs *ResultSet) distinct() {
	seen := map[string]bool{}
	rs.Rows = slices.DeleteFunc(rs.Rows, func(row []Value) bool {
		var key strings.Builder
		for _, v := range row {
			key.WriteByte(byte(v.kind))
			key.WriteString(v.Text())
			key.WriteByte(0)
		}
		again := seen[key.String()]
		seen[key.String()] = true
		return again
	})
}

// isAggregate tells whether an expression is a function of all rows.
func isAggregate(e Expr) (*Call, bool) {
	c, ok := e.(*Call)
	if !ok || c.Schema != "" {
		return nil, false
	}
	switch strings.ToUpper(c.Name) {
	case "COUNT", "MIN", "MAX", "SUM":
		return c, true
	}
	return nil, false
}

// children are the operands of an expression.
func children(e Expr) []Expr {
	switch e := e.(type) {
	case *Op:
		return e.Args
	case *Call:
		return e.Args
	case *Assign:
		return []Expr{e.X}
	}
	return nil
}

// aggregated tells whether there is an aggregate in an expression.
func aggregated(e Expr) bool {
	if _, is := isAggregate(e); is {
		return true
	}
	return slices.ContainsFunc(children(e), aggregated)
}

// bareColumn returns a column that is in no aggregate.
func bareColumn(e Expr) *ColumnRef {
	if c, ok := e.(*ColumnRef); ok {
		return c
	}
	if _, is := isAggregate(e); is {
		return nil
	}
	for _, x := range children(e) {
		if c := bareColumn(x); c != nil {
			return c
		}
	}
	return nil
}

// aggregate evaluates COUNT, MIN, MAX or SUM over the group.
func (ev *evaluation) aggregate(c *Call) (Value, error) {
	if len(c.Args) != 1 {
		return Null, errSyntax(c.Name+"()", 0)
	}
	if ev.inAggregate || ev.clause == "where clause" {
		return Null, Errorf(1111, "HY000", "Invalid use of group function")
	}
	ev.inAggregate = true
	defer func(row []Value) { ev.inAggregate, ev.row = false, row }(ev.row)
	var values []Value
	for _, row := range ev.group {
		ev.row = row
		v, err := ev.eval(c.Args[0])
		if err != nil {
			return Null, err
		}
		if !v.IsNull() {
			values = append(values, v)
		}
	}
	name := strings.ToUpper(c.Name)
	if name == "COUNT" {
		return Int(int64(len(values))), nil
	}
	result, common := Null, typical(ev.possible(c.Args[0], values))
	for _, v := range values {
		v = v.as(common)
		switch {
		case name == "SUM":
			if result.IsNull() {
				result = Int(0) // so that one row with text is a number, too
			}
			var err error
			if result, err = arithmetic("+", result, v); err != nil {
				return Null, err
			}
		case result.IsNull():
			result = v
		case (compare(v, result) < 0) == (name == "MIN") && compare(v, result) != 0:
			result = v
		}
	}
	return result, nil
}
