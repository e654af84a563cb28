// Package e2e tests the real program with real servers: sources and replicas
// from internal/mysqltest, kingbus as processes of its own that are killed, frozen
// and cut off from each other.
//
// TestChaos does that at random for a minute; it can go on for longer, and again
// with the seed that it prints:
//
//	go test -race -run TestChaos -v -timeout 1h ./internal/e2e -chaos 10m -chaos-seed 7
//
// What fails leaves its logs, data folders and the source's binlogs, and says where.
package e2e
