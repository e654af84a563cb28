package admin

import (
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// object is a JSON object of an OpenAPI 3.1 description.
type object = map[string]any

// describer makes openapi.json: paths of the routes, schemas of the Go types and of the
// comments at them.
type describer struct {
	t        *testing.T
	schemas  object
	packages map[string]*source // by import path
}

// source is what the files of a package say.
type source struct {
	types  map[string]string            // comments of types
	fields map[string]map[string]string // comments of fields, by type
	values map[string][]any             // values of the constants of a type that is a string
}

func describe(t *testing.T, routes []route) object {
	d := &describer{t: t, schemas: object{}, packages: map[string]*source{}}
	paths := object{}
	for _, r := range routes {
		path := strings.TrimSuffix(r.path, "{$}")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(r.method)] = d.operation(r)
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "kingbus", "version": "v1",
			"description": "The HTTP API of a node of kingbus. Any node takes a change; the leader carries it out. A change needs the header Content-Type: application/json, with or without a body. " +
				"Fields and codes are added in time, and never change their meaning. Times are RFC 3339, durations nanoseconds.",
		},
		"paths":    paths,
		"security": []any{object{"token": []any{}}, object{"certificate": []any{}}},
		"components": object{
			"securitySchemes": object{
				"token":       object{"type": "http", "scheme": "bearer", "description": "The token of the node: DIR/keys/admin-token, or what --admin-token-file says"},
				"certificate": object{"type": "mutualTLS", "description": "A certificate that --admin-tls-ca of the node has signed"},
			},
			"responses": object{"Failure": object{"description": "What went wrong, and what to do", "content": object{"application/json": object{"schema": d.schema(reflect.TypeFor[Failure]())}}}},
			"schemas":   d.schemas,
		},
	}
}

var parameter = regexp.MustCompile(`\{(\w+)\}`)

func (d *describer) operation(r route) object {
	op := object{"summary": r.does}
	if r.open {
		op["security"] = []any{}
	}
	var parameters []any
	for _, m := range parameter.FindAllStringSubmatch(r.path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	takes := r.takes
	may, missing := takes.(optional)
	if missing {
		takes = may.of
	}
	if takes != nil {
		schema := d.schema(reflect.TypeOf(takes))
		d.schemas[strings.TrimPrefix(reflect.TypeOf(takes).String(), "admin.")].(object)["additionalProperties"] = false // decode refuses them
		op["requestBody"] = object{"required": !missing, "content": object{"application/json": object{"schema": schema}}}
	}
	answers := object{"default": object{"$ref": "#/components/responses/Failure"}}
	content := func(kind string, schema object) object {
		return object{"description": "done", "content": object{kind: object{"schema": schema}}}
	}
	switch a := r.answers.(type) {
	case nil:
		answers["204"] = object{"description": "done"}
	case media:
		answers["200"] = object{"description": "done", "content": object{string(a): object{}}}
	case manyOf:
		answers["200"] = content("application/x-ndjson", d.schema(reflect.TypeOf(a.of)))
	default:
		answers["200"] = content("application/json", d.schema(reflect.TypeOf(a)))
	}
	if _, is := r.answers.(Readiness); is {
		answers["503"] = content("application/json", d.schema(reflect.TypeOf(r.answers)))
	}
	op["responses"] = answers
	return op
}

// schema describes a type; a struct is put among the schemas.
func (d *describer) schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		d.t.Fatalf("%v makes its own JSON, which nobody describes", t)
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		out := object{"type": "string"}
		if t.PkgPath() != "" {
			if values := d.source(t).values[t.Name()]; values != nil {
				out["enum"] = values
			}
		}
		return out
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Map: // by names
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Struct:
		name := strings.TrimPrefix(t.String(), "admin.")
		if d.schemas[name] == nil {
			d.schemas[name] = object{} // while it is made
			d.schemas[name] = d.structure(t)
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	d.t.Fatalf("%v cannot be described", t)
	return nil
}

func (d *describer) structure(t reflect.Type) object {
	out := object{"type": "object"}
	if text := d.source(t).types[t.Name()]; text != "" {
		out["description"] = text
	}
	properties, required := object{}, []any{}
	d.fields(t, false, properties, &required)
	out["properties"] = properties
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func (d *describer) fields(t reflect.Type, optional bool, properties object, required *[]any) {
	for f := range t.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			d.fields(inner, optional || f.Type.Kind() == reflect.Pointer, properties, required)
			continue
		}
		if tag == "" || !f.IsExported() {
			d.t.Fatalf("the field %s of %v has no name in JSON", f.Name, t)
		}
		s := d.schema(f.Type)
		if options == "string" {
			s = object{"type": "string", "pattern": "^[0-9]+$"}
		}
		if text := d.source(t).fields[t.Name()][f.Name]; text != "" {
			s["description"] = text
		}
		properties[tag] = s
		if !optional && !strings.HasPrefix(options, "omit") {
			*required = append(*required, tag)
		}
	}
}

// source reads the package of a type.
func (d *describer) source(t reflect.Type) *source {
	if s := d.packages[t.PkgPath()]; s != nil {
		return s
	}
	s := &source{types: map[string]string{}, fields: map[string]map[string]string{}, values: map[string][]any{}}
	d.packages[t.PkgPath()] = s
	files, err := filepath.Glob(filepath.Join("..", strings.TrimPrefix(t.PkgPath(), "kingbus/internal/"), "*.go"))
	if err != nil || len(files) == 0 {
		d.t.Fatalf("no files of %s: %v", t.PkgPath(), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, decl := range f.Decls {
			if g, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range g.Specs {
					s.take(g, spec)
				}
			}
		}
	}
	return s
}

func (s *source) take(g *ast.GenDecl, spec ast.Spec) {
	text := func(groups ...*ast.CommentGroup) string {
		for _, c := range groups {
			if c != nil {
				return strings.Join(strings.Fields(c.Text()), " ")
			}
		}
		return ""
	}
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		name := spec.Name.Name
		s.types[name] = text(spec.Doc, g.Doc)
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return
		}
		s.fields[name] = map[string]string{}
		for _, f := range structure.Fields.List {
			for _, n := range f.Names {
				s.fields[name][n.Name] = text(f.Doc, f.Comment)
			}
		}
	case *ast.ValueSpec:
		named, ok := spec.Type.(*ast.Ident)
		if !ok || g.Tok != token.CONST {
			return
		}
		for _, v := range spec.Values {
			if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				value, _ := strconv.Unquote(lit.Value) // the compiler has read it, too
				s.values[named.Name] = append(s.values[named.Name], value)
			}
		}
	}
}

// check tells where a JSON value is not as a schema of the description says.
func (o openAPI) check(schema object, v any, at string) (wrong []string) {
	complain := func(what string) []string { return append(wrong, at+": "+what) }
	if ref, is := schema["$ref"].(string); is {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		target, ok := o.Components.Schemas[name].(object)
		if !ok {
			return complain("there is no schema " + ref)
		}
		return o.check(target, v, at)
	}
	if values, is := schema["enum"].([]any); is && !slices.Contains(values, v) {
		wrong = complain("a value that is not listed")
	}
	switch v := v.(type) {
	case bool:
		if schema["type"] != "boolean" {
			return complain("a boolean")
		}
	case string:
		if schema["type"] != "string" {
			return complain("a string")
		}
		if _, err := time.Parse(time.RFC3339, v); schema["format"] == "date-time" && err != nil {
			return complain("no time")
		}
	case float64:
		if schema["type"] != "number" && (schema["type"] != "integer" || v != float64(int64(v))) {
			return complain("a number")
		}
	case []any:
		items, is := schema["items"].(object)
		if schema["type"] != "array" || !is {
			return complain("an array")
		}
		for _, item := range v {
			wrong = append(wrong, o.check(items, item, at+"[]")...)
		}
	case object:
		properties, is := schema["properties"].(object)
		others, open := schema["additionalProperties"].(object)
		if schema["type"] != "object" || !is && !open {
			return complain("an object")
		}
		for name, value := range v {
			if property, is := properties[name].(object); is {
				wrong = append(wrong, o.check(property, value, at+"."+name)...)
			} else if open {
				wrong = append(wrong, o.check(others, value, at+"."+name)...)
			} else {
				wrong = complain("a property that is not described: " + name)
			}
		}
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, has := v[name.(string)]; !has {
				wrong = complain("no " + name.(string))
			}
		}
	default:
		return complain("null")
	}
	return wrong
}
