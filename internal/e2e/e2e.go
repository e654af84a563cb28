// Package e2e tests the real program with real servers: sources and replicas
// from internal/mysqltest, kingbus as a process of its own that is killed.
package e2e
