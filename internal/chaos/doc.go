// Package chaos kills, freezes and starves the real thing: the built program in processes of its own, a Postgres that
// syncs to disk, a model provider that keeps a ledger, and clients that remember what they were promised. Its tests
// break one of these under load, and then judge what is left: the log of events, the tables, and the ledger. Each test
// also proves that its fault did happen, so that none can pass by missing it.
//
// All of them take minutes (make chaos); with -short one remains. FERMATA_CHAOS_RACE=1 builds the program with the race
// detector; FERMATA_CHAOS_FORMER names the program of a release before, and lets nodes of it take part in an upgrade. The logs of the nodes are kept when a test fails.
package chaos
