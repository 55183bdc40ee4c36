package api

import (
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The limits of a connection.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // streams and waits lift it for themselves
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	headerBytesMax    = 32 << 10
	writeSlack        = 10 * time.Second // to write what a wait has brought, or one piece of a stream
)

// ServerConfig says where to listen.
type ServerConfig struct {
	Addr string       // host:port
	Log  *slog.Logger // of connections that break; nil: nowhere
}

// Server makes the HTTP server for a handler, with a limit on everything a connection can hold.
func Server(cfg ServerConfig, handler http.Handler) *http.Server {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Addr: cfg.Addr, Handler: handler,
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytesMax,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// listensOnLoopback reports whether an address to listen at can be reached from this machine only.
func listensOnLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && isLoopback(host)
}

// allow gives a handler that waits longer than others its time: until then, and the time to write.
func allow(w http.ResponseWriter, wait time.Duration) {
	c := http.NewResponseController(w)
	// Not every writer has a connection under it (tests have none): then there is no deadline to lift.
	_ = c.SetReadDeadline(time.Time{})
	_ = c.SetWriteDeadline(time.Now().Add(wait + writeSlack))
}
