package main

import "time"

// limits reads how much is kept, and for how long.
func (e *environment) limits(c *config) {
	e.read("Limits",
		setting{"REDIS_TTL", "2592000", "seconds from the last access of a conversation to its end", seconds(&c.limits.TTL, 1, 315_360_000)},
		setting{
			"MAX_CONVERSATION_AGE", "0", "seconds from the start of a conversation to its end, whatever the accesses; 0: any",
			seconds(&c.limits.Age, 0, 315_360_000),
		},
		setting{
			"MAX_MESSAGES_PER_CONVERSATION", "10000", "a turn begins while there is room for a question and one answer",
			integer(&c.limits.Messages, 2, 1_000_000),
		},
		setting{"MAX_CONVERSATIONS_PER_USER", "10000", "conversations that have not ended", integer(&c.limits.Conversations, 1, 1_000_000)},
		setting{
			"IDEMPOTENCY_TTL", "86400", "seconds for which a request with a key is recognised; at most `REDIS_TTL`, to which a longer default is cut",
			seconds(&c.chat.IdempotencyTTL, 60, 31_536_000),
		},
		setting{
			"MAX_BYTES_PER_USER", "33554432", "bytes of messages, titles, metadata and requests with a key; an answer is stored even beyond it",
			integer(&c.limits.Bytes, 1<<20, 16<<30),
		},
		setting{
			"MAX_TURNS_PER_MINUTE", "300", "starts, and sends that are answered anew, of one user on all instances",
			integer(&c.limits.TurnsPerMinute, 1, 1_000_000),
		},
		setting{
			"MAX_IDEMPOTENCY_RECORDS", "10000", "requests with a key that are remembered for one user; beyond it the oldest is forgotten first",
			integer(&c.limits.IdempotencyRecords, 100, 1_000_000),
		},
	)
}

// turns reads who answers, and what a turn may take.
func (e *environment) turns(c *config) {
	e.read("Turns",
		setting{"AGENT", "echo", "who answers: `echo`, `openai` or `copilotstudio`; docs/agents.md has a section for each", oneOf(&c.agent, "echo", "openai", "copilotstudio")},
		setting{"AGENT_ECHO_DELAY", "0s", "between two words of an echo", duration(&c.echo.Delay, 0, time.Minute)},
		setting{"AGENT_ECHO_GREETING", "", "what an echo says at the start; none: nothing", text(&c.echo.Greeting)},
		setting{"AGENT_CONTEXT_MESSAGES", "50", "earlier messages that the agent is given; 0: none", integer(&c.chat.Context, 0, 1000)},
		setting{
			"AGENT_CONTEXT_BYTES", "262144", "and their bytes: the newest whole messages; 0: none", integer(&c.chat.ContextBytes, 0, 16<<20),
		},
		setting{
			"AGENT_CONNECT_TIMEOUT", "5s", "for a connection to the agent, with its TLS handshake", duration(&c.deadlines.Connect, 10*time.Millisecond, time.Minute),
		},
		setting{
			"AGENT_FIRST_BYTE_TIMEOUT", "30s", "for the first byte of its answer, all tries together",
			duration(&c.deadlines.FirstByte, 10*time.Millisecond, longestCall),
		},
		setting{
			"AGENT_SILENCE_TIMEOUT", "60s", "for more of its answer, before it counts as silent",
			duration(&c.deadlines.Silence, 10*time.Millisecond, longestCall),
		},
		setting{
			"AGENT_TIMEOUT", "200s",
			"for one answer; at most `REDIS_TTL`, to which a longer default is cut, and with `TURN_WAIT` at most `CALL_MAX`",
			duration(&c.chat.AgentTimeout, 10*time.Millisecond, longestCall),
		},
		setting{
			"TURN_WAIT", "10s", "how long a send waits for its turn; 0s: it takes a free turn, and waits for none",
			duration(&c.chat.TurnWait, 0, longestCall),
		},
		setting{
			"TURN_LEASE", "30s", "how long a turn outlives its process; at least 3 × `REDIS_TIMEOUT`, to which a shorter default is raised",
			duration(&c.chat.TurnLease, time.Second, time.Hour),
		},
	)
}
