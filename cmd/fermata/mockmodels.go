package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/bench"
	"github.com/fermata-run/fermata/internal/upstream"
)

const mockHeaderTimeout = 10 * time.Second

// mockModelsCommand plays the model server that the benchmark of the gateway asks: a process of its own, so that its
// memory is not counted.
type mockModelsCommand struct {
	Listen string `default:"127.0.0.1:0" help:"Where to listen."`
}

// Run serves until ctx is done. Its first line of output says where.
func (c *mockModelsCommand) Run(ctx context.Context, s *screen) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	played := &upstream.Server{Quiet: true, Gate: make(chan struct{})}
	release := sync.OnceFunc(func() { close(played.Gate) })
	played.Script(bench.ModelHeld, upstream.Step{Hold: true})
	played.Script(bench.ModelBroken, upstream.Step{Status: http.StatusInternalServerError, Body: `{"error":{"message":"broken","type":"server_error"}}`})
	mux := http.NewServeMux()
	mux.Handle("/v1/", played)
	mux.HandleFunc("GET /calls/{model}", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(played.Count(r.PathValue("model")))
	})
	mux.HandleFunc("POST /release", func(http.ResponseWriter, *http.Request) { release() })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: mockHeaderTimeout}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	s.print("http://%s", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
