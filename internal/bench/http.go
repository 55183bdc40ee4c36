package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

const clientsMax = 256 // connections of the load

// serve puts the API before the engine, publishes the workload's definition, and submits through HTTP from then on.
func (b *bench) serve(ctx context.Context) (stop func(), err error) {
	handler, err := b.Handler(b.engine)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() //nolint:errcheck // ends with Close
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clientsMax, MaxConnsPerHost: clientsMax}}
	url := "http://" + listener.Addr().String()
	stop = func() { client.CloseIdleConnections(); _ = server.Close() } //nolint:errcheck // the bench is over

	name, err := publish(ctx, client, url, b.load.definition)
	if err != nil {
		stop()
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"workflow": name, "input": json.RawMessage(b.load.input)})
	if err != nil {
		stop()
		return nil, err
	}
	b.submit = func(ctx context.Context) (uuid.UUID, error) { return post(ctx, client, url+"/v1/runs", body) }
	return stop, nil
}

func publish(ctx context.Context, client *http.Client, url, definition string) (string, error) {
	answer, err := send(ctx, client, url+"/v1/workflows", "application/yaml", strings.NewReader(definition))
	if err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	var published struct {
		Name string `json:"name"`
	}
	err = json.Unmarshal(answer, &published)
	return published.Name, err
}

func post(ctx context.Context, client *http.Client, url string, body []byte) (uuid.UUID, error) {
	answer, err := send(ctx, client, url, "application/json", bytes.NewReader(body))
	if err != nil {
		return uuid.Nil, err
	}
	var run struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer, &run); err != nil {
		return uuid.Nil, err
	}
	return uuid.Parse(strings.TrimPrefix(run.ID, "run_"))
}

func send(ctx context.Context, client *http.Client, url, contentType string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s: %s", url, res.Status, answer)
	}
	return answer, err
}
