package main

import (
	"fmt"
	"net"
	"net/netip"
)

// checkListen refuses an address that strangers could reach: there are no API keys in this version, so whoever reaches
// the service may run and read everything.
func checkListen(addr string, insecure bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usageError("--listen %s: %w", addr, err)
	}
	if insecure || isLoopback(host) {
		return nil
	}
	return usageError("--listen %s can be reached from other machines, and this version has no API keys: listen on 127.0.0.1, or say --insecure-no-auth", addr)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// urlOf is where a listener can be reached from this machine.
func urlOf(l net.Listener) string {
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return "http://" + l.Addr().String()
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}
