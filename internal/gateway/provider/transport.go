package provider

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// checked gives the address and the key of a server, if they can be used. The errors tell neither.
func checked(name, base, key string) (*url.URL, string, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("provider %s: the base URL cannot be read", name)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, "", fmt.Errorf("provider %s: the base URL must begin with http:// or https:// and a host", name)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, "", fmt.Errorf("provider %s: the base URL must hold neither credentials nor a query", name)
	}
	key = strings.TrimSpace(key)
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, "", fmt.Errorf("provider %s: the API key holds a character that no key has", name)
	}
	return u, key, nil
}

func orDefault[T time.Duration | int64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

func newTransport(conns int) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // never from the environment: keys go where the configuration says
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		MaxConnsPerHost:        conns,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // compressed streams come in lumps
		MaxResponseHeaderBytes: 64 << 10,
	}
}

func newClient(t *http.Transport) *http.Client {
	return &http.Client{
		Transport: t,
		// A redirect would carry prompt and key to a host that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
