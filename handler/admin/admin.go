// Package admin is what operators do with conversations on a command line: find, show, export and erase them, and look after Redis.
package admin

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"
)

// Exit codes.
const (
	Done    = 0
	Failed  = 1 // Redis cannot be reached, or an export was cut: nothing is known to be undone
	Refused = 2 // wrong use, or nobody confirmed; nothing was done
	Nothing = 3 // there is no such conversation or user; of check: keys without an expiry were found
)

// Terminal is where a command reads and writes.
type Terminal struct {
	In            io.Reader
	IsInteractive bool // somebody can answer at In
	Out, Err      io.Writer
}

const usage = `Usage: handler admin COMMAND [flags]

  find     the conversations of a user
  show     one conversation: -id ID
  export   all that a user has, as GET /api/chat/export answers
  erase    all that a user has: asks first
  usage    bytes, conversations and memory of a user, or without one of the -top largest
  check    keys without an expiry

A user is -tenant T with -subject S (the claims tid and sub of the token), or with -object-id O (the claim oid), which looks at every
conversation. -json prints JSON, a line for each. Redis is the one of the environment, as for the service. No command counts as an access.

Exit codes: 0 done; 1 failed; 2 refused, nothing was done; 3 nothing found, or of check: keys without an expiry.
`

// command is one call.
type command struct {
	Terminal
	redis   *store.Redis
	service *chat.Service
	log     *slog.Logger
	began   time.Time
	told    time.Time

	tenant, subject, objectID, id string
	top                           int
	asJSON, dryRun, yes           bool
}

var (
	errUse     = errors.New("wrong use")
	errNothing = errors.New("nothing found")

	errWithoutExpiry = errors.New("no key may stay for ever: tell who maintains Chatkeep what is found here")
)

// IsHelp tells whether the arguments ask how to use the command, for which no Redis is needed.
func IsHelp(args []string) bool {
	return len(args) == 0 || strings.TrimLeft(args[0], "-") == "help" || args[0] == "-h"
}

// Help says how to use the command.
func Help(t Terminal) int {
	_, _ = fmt.Fprint(t.Out, usage)
	return Done
}

// Run carries out a command, and returns its exit code. What it writes of users are names and words that an operator has asked for; the log
// has neither.
func Run(ctx context.Context, args []string, redis *store.Redis, service *chat.Service, t Terminal, log *slog.Logger) int {
	c := &command{Terminal: t, redis: redis, service: service, log: log, began: time.Now()}
	err := c.run(ctx, args)
	switch {
	case err == nil:
		return Done
	case errors.Is(err, errNothing), errors.Is(err, errWithoutExpiry):
		_, _ = fmt.Fprintln(t.Err, err)
		return Nothing
	case errors.Is(err, errUse):
		_, _ = fmt.Fprintf(t.Err, "%v; handler admin help says more\n", err)
		return Refused
	default:
		_, _ = fmt.Fprintln(t.Err, "failed:", err)
		return Failed
	}
}

func (c *command) run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context) error{
		"find": c.find, "show": c.show, "export": c.export, "erase": c.erase, "usage": c.usage, "check": c.check,
	}
	do, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("%w: there is no command %q", errUse, args[0])
	}
	if err := c.parse(args[0], args[1:]); err != nil {
		return err
	}
	return do(ctx)
}

func (c *command) parse(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&c.asJSON, "json", false, "")
	switch name {
	case "find", "show", "export", "erase", "usage":
		flags.StringVar(&c.tenant, "tenant", "", "")
		flags.StringVar(&c.subject, "subject", "", "")
		flags.StringVar(&c.objectID, "object-id", "", "")
	}
	switch name {
	case "show":
		flags.StringVar(&c.id, "id", "", "")
	case "erase":
		flags.BoolVar(&c.dryRun, "dry-run", false, "")
		flags.BoolVar(&c.yes, "yes", false, "")
	case "usage":
		flags.IntVar(&c.top, "top", 20, "")
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUse, err)
	}
	c.tenant, c.objectID, c.id = strings.ToLower(c.tenant), strings.ToLower(c.objectID), strings.ToLower(c.id)
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%w: what is %q?", errUse, flags.Arg(0))
	case name == "show" && c.id == "":
		return fmt.Errorf("%w: show needs -id", errUse)
	case name == "check", name == "usage" && c.tenant+c.subject+c.objectID == "":
		return nil
	case c.tenant == "" || (c.subject == "") == (c.objectID == ""):
		return fmt.Errorf("%w: name the user by -tenant, and by -subject or -object-id", errUse)
	}
	return nil
}

// owners are the users that the flags name: with an object id as many as have it, which is one unless ids were changed by hand.
func (c *command) owners(ctx context.Context) ([]chat.Owner, error) {
	if c.subject != "" {
		return []chat.Owner{{TenantID: c.tenant, UserID: c.subject}}, nil
	}
	owners, err := c.redis.FindOwners(ctx, c.tenant, c.objectID, c.look)
	if err == nil && len(owners) == 0 {
		err = fmt.Errorf("%w: no conversation has this object id", errNothing)
	}
	return owners, err
}

// look tells about once a second how many keys were seen, when it takes longer than two.
func (c *command) look(keys int) {
	if now := time.Now(); now.Sub(c.began) > 2*time.Second && now.Sub(c.told) > time.Second {
		c.told = now
		_, _ = fmt.Fprintf(c.Err, "%d keys seen in %.0f s\n", keys, now.Sub(c.began).Seconds())
	}
}

// confirmed asks whether to go on.
func (c *command) confirmed(question string) error {
	if c.yes {
		return nil
	}
	if !c.IsInteractive {
		return fmt.Errorf("%w: nobody is there to confirm: -yes does", errUse)
	}
	_, _ = fmt.Fprintf(c.Err, "%s Type yes: ", question)
	answer, _ := bufio.NewReader(c.In).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return fmt.Errorf("%w: not confirmed, nothing was erased", errUse)
	}
	return nil
}
