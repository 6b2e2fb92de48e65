package main

import (
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// process reads what concerns the program itself.
func (e *environment) process(c *config) {
	var host, level string
	var port, hostsPort int
	e.read("Process",
		setting{
			"FUNCTIONS_CUSTOMHANDLER_PORT", "", "set by the Functions host, which calls 127.0.0.1 at this port: `PORT` and `HOST` do nothing then",
			integer(&hostsPort, 1, 65535),
		},
		setting{"PORT", "8080", "where to listen without the Functions host", integer(&port, 1, 65535)},
		setting{
			"HOST", "127.0.0.1", "the IP address to listen at without the Functions host; 0.0.0.0 stands for all of this machine's",
			text(&host),
		},
		setting{
			"CALL_MAX", "225s",
			"from a request's headers to the last byte of its answer, whatever the caller does; below the 230s of Azure and host.json's functionTimeout",
			duration(&c.apiLimits.Call, 2*time.Second, longestCall),
		},
		setting{
			"STREAM_MAX", "220s", "for a stream that follows a conversation, after which its client comes again; at most `CALL_MAX`, to which a longer default is cut",
			duration(&c.apiLimits.Stream, time.Second, longestCall),
		},
		setting{
			"MAX_CONCURRENT_REQUESTS_PER_USER", "32", "of one user that this process answers at a time",
			integer(&c.apiLimits.Requests, 1, 10_000),
		},
		setting{
			"MAX_UI_BODY", "1048576", "bytes of a body of ui; an instance of 512 MB is deployed with the least",
			integer(&c.apiLimits.UIBody, 256<<10, 1<<20),
		},
		setting{"LOG_LEVEL", "info", "`debug` adds why a caller was refused", oneOf(&level, "info", "debug")},
		setting{"SHUTDOWN_GRACE", "10s", "for running turns after SIGTERM; 0s: none", duration(&c.grace, 0, time.Hour)},
	)
	if level == "debug" {
		c.logLevel = slog.LevelDebug
	}
	c.underHost = e.text("FUNCTIONS_CUSTOMHANDLER_PORT") != ""
	if c.underHost {
		host, port = "127.0.0.1", hostsPort
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		e.refuse("HOST", "must be an IP address, such as 127.0.0.1, or 0.0.0.0 for all of this machine's")
	}
	c.address = net.JoinHostPort(host, strconv.Itoa(port))
	if c.underHost && len(c.edge.Origins) > 0 {
		e.warn("CORS_ORIGINS is ignored under the Functions host, which answers for CORS itself")
		c.edge.Origins = nil
	}
}
