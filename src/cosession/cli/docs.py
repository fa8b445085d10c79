"""Writes docs/command.md: `python -m cosession.cli.docs > docs/command.md`.

The help texts in it are those of the commands, so they can't differ; a test compares the file
with what this prints, and runs every example.
"""

from __future__ import annotations

import sys

import click

from .app import COMMANDS, app
from .exits import table

_WIDTH = 80

_PAGE = """\
<!-- Written by `python -m cosession.cli.docs > docs/command.md`: change it there. -->

# The command

`cosession` looks at a session file and writes into it, from a terminal, a shell script, or any
language that can start a program. What it writes is as safe as what the library writes, and other
programs may use the session at the same time.

```console
$ cosession append chat.jsonl "What is the capital of France?"
...:59
$ echo "Paris." | cosession append chat.jsonl --role assistant
...:99
$ cosession checkpoint chat.jsonl
0
$ cosession show chat.jsonl
user
  What is the capital of France?

assistant
  Paris.

· checkpoint 0
$ cosession revert chat.jsonl 0
...chat_1.jsonl
$ cosession show chat_1.jsonl | tail -n 1
· checkpoint 0
```

Results go to standard output, everything else to standard error: an error is one line that begins
with `cosession:` and often a second one that begins with `hint:`. `--debug` adds the traceback.
A command that waits for another process says after a second for whom; Ctrl-C ends the wait at once.

## Several at once, and nobody surprised

`append --json` reads one message from each line and appends all of them or none, with nobody
else's records in between: a tool call and its result stay together.

```console
$ cosession append --json chat.jsonl < messages.jsonl
...:...
```

`append` prints the revision at which the session stands, `show --revision` prints it as well.
`--expect` refuses a change if messages came in since, so that a script doesn't answer a question
that isn't the last one any more:

```console
$ cosession append chat.jsonl "Tell me a joke."
...
$ revision=$(cosession show --revision chat.jsonl)
$ cosession append chat.jsonl "No, a story."
...
$ cosession append chat.jsonl "Knock, knock." --expect "$revision" || echo "status $?"
cosession: ...chat.jsonl: expected revision ...:44, but it is at ...:85 (1 new message(s))
hint: nothing was changed: look at it with `cosession show ...chat.jsonl`, then call again with ...
status 4
```

A script that must not hang gives up with `--timeout SECONDS`, and then ends with status 3.

## Side by side

`tail -f` shows what anybody does to the session, as it happens; `who` tells which terminals are on
it, and whose turn it is.

```console
$ cosession append chat.jsonl "hi"
...
$ cosession tail -n 1 chat.jsonl
user
  hi
$ cosession who chat.jsonl || echo "status $?"
cosession: chat.jsonl: nobody is there
status 1
```

## In one piece

`hold` runs any command inside a turn, as flock(1) runs it inside a lock: other terminals' messages
come before or behind all that the command writes.

```console
$ echo 'cosession append chat.jsonl "What day is it?"' > answer.sh
$ echo 'date +%A | cosession append chat.jsonl --role assistant' >> answer.sh
$ cosession hold chat.jsonl --label answering -- sh answer.sh
...
$ cosession hold chat.jsonl -- sh -c 'exit 5' || echo "status $?"
status 5
```

The commands inside know from the environment variable `COSESSION_TURN` in whose turn they are; a
program in Python calls `session.join_turn(os.environ.get("COSESSION_TURN"))`. The name is good for
as long as the session says that this turn is on. Whatever the command leaves running gets status 4
once `hold` has ended.

If `hold` itself is killed, its turn is interrupted. The command, if it goes on, still writes in the
turn, and nobody else writes messages, until somebody settles the turn: from then on the command
gets status 4, too. So between a call and its result there is never anybody else's message.

A terminal that dies in its turn leaves something to decide: `verify` and `heal` say so, with
status 1, and

```console
$ cosession append chat.jsonl "hi"
...
$ cosession heal --turn keep chat.jsonl
nothing to settle
```

keeps what it wrote, with a result for each tool call that has none; `--turn roll-back` reverts to
where the turn began.

## Another language

A process that isn't written in Python starts the command, and reads the session as JSON Lines:

```console
$ cosession append chat.jsonl "hi"
...
$ cosession show --json --last 1 chat.jsonl
{{"offset": 0, "kind": "message", "record": {{"role": "user", "content": "hi"}}}}
```

`who`, `status` and `tail -f` take `--json` as well. Whoever has a turn, waits for one or is present
is an object with the same keys in all of them: `label`, `user`, `host`, `pid`, `terminal`, `since`.

## A chat

`chat` talks with an agent on a session that other terminals use too; [chat.md](chat.md) says what
the agent reads and prints. With input from a pipe, each line is a question:

```console
$ echo "Are you there?" | cosession chat chat.jsonl --agent echo:0
...
$ cosession show --last 1 chat.jsonl
assistant
  You said: Are you there?
```

## Looking after a session

`verify` lists every line with its state, and what a process that died may have left behind.
`heal` settles that. Both tell by their exit status whether something is off.

```console
$ cosession append chat.jsonl "hi"
...
$ printf '{{"role": "us' >> chat.jsonl
$ cosession verify --quiet chat.jsonl || echo "status $?"
line 2      offset 31         pending  12 bytes: not JSON: ...
...chat.jsonl: 2 lines, 43 bytes (1 damaged, 1 message)
revision ...:31
off: the last line, 12 bytes at offset 31, has no newline (heal: it gets one)
1 pending line(s)
something is off
status 1
$ cosession heal chat.jsonl
settled: the last line, 12 bytes at offset 31, has no newline; it gets one
cosession: chat.jsonl: 1 damaged line(s) stay in the file, and are skipped
hint: `cosession verify --quiet` shows them
```

The damaged line stays in the file, where readers skip it: nothing is ever deleted.

## Is the folder fit for it?

`doctor` tries out whether sessions can be shared in a folder: with two processes, in a private
folder that it makes there and removes again.

```console
$ cosession doctor . || echo "not here"
...file system  ...
...
...lock         ...
...
```

It ends with a verdict in words, and with status 0 if nothing is off. `--json` gives all that was
measured. What it looks at:

- *file system*: which one it is, and if it is on this machine, on a network, in memory, or shared
  with the host of a virtual machine;
- *synced*: signs of OneDrive, Dropbox, iCloud Drive, Google Drive, Syncthing, Nextcloud and others;
- *room*: whether the disk is nearly full, or read-only; *folder*: whether files can be made there;
- *lock*, *turn's lock*: if a second process is refused while the first has the lock, and how soon
  it has it when the first lets go, or is killed;
- *append*: whether lines that two processes append at once, without a lock, stay whole;
- *replace*: if a file can be replaced while another process has it open;
- *mode*, *identity*, *hard link*, *mtime*: whether files keep the mode 0600 and one number, can
  have a second name, and show by their time that they were changed;
- *coherence*: whether a process reads at once what another one has written;
- *sync*, *a commit*: what it costs to have data on the disk, and to append a message;
- *watch*: whether file events arrive, if watchfiles is installed;
- *session*: what `verify` says, in one line, if there is a session at PATH.

A probe that does not come back within `--timeout` is given up, and the verdict says so: on a
network folder a call may never return. With `--lock-dir` the locks are tried in that folder.

## Going back, and another way

A revert is no loss: the old file is kept, `log` tells which there are, and `restore` brings one
back. A fork leaves the session as it is and goes on in a file of its own.

```console
$ cosession append chat.jsonl "Let us try it this way."
...
$ cosession checkpoint chat.jsonl
0
$ cosession append chat.jsonl "Rather not."
...
$ cosession fork chat.jsonl --at 0
...chat.fork-1.jsonl
$ cosession revert chat.jsonl 0
...chat_1.jsonl
$ cosession restore chat.jsonl 1
...chat_2.jsonl
$ cosession log chat.jsonl
...  fork              chat.fork-1.jsonl, at ...
...  revert            1 message left the session; it is kept as chat_1.jsonl  (...)
...  restore           0 messages left the session; it is kept as chat_2.jsonl  (...)
...  checkpoint        0, behind 1 message
...  now               2 messages, revision ...
$ cosession status chat.jsonl
session      ...chat.jsonl
revision     ...
messages     2 messages, 1 checkpoint
rotated      2 files, the newest chat_2.jsonl
turn         nobody's
```

## Who waits for whom

While `COSESSION_TRACE` names a file, every program on a session appends to it when it waited for a
turn or for a commit, and when it had it. `timeline` makes a table and a picture of that:

```console
$ export COSESSION_TRACE="$PWD/trace.jsonl"
$ cosession append chat.jsonl "hi"
...:...
$ cosession timeline trace.jsonl --svg timeline.svg
trace.jsonl: 3 events of 1 terminal on 1 session in ... s
...
timeline.svg
```

What both look like, what is in such a file, and how to trace from Python: [trace.md](trace.md).

## Exit status

| status | meaning |
|---|---|
{statuses}

## Completion in the shell

One line in the shell's start-up file completes commands, options, file names, and the checkpoints
of the file named before:

| shell | file | line |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(_COSESSION_COMPLETE=bash_source cosession)"` |
| zsh | `~/.zshrc` | `eval "$(_COSESSION_COMPLETE=zsh_source cosession)"` |
| fish | `~/.config/fish/completions/cosession.fish` | \
`_COSESSION_COMPLETE=fish_source cosession \\| source` |

## Environment

| variable | effect |
|---|---|
| `NO_COLOR` | no colours |
| `FORCE_COLOR` | colours even where the output isn't a terminal |
| `COSESSION_TURN` | the turn to write in: set by `hold` for its command |
| `COSESSION_TRACE` | a file that tells afterwards who waited for whom ([trace.md](trace.md)) |
| `PAGER`, `LESS` | what `show` pages with on a terminal, and its flags; by default `less -FRX` |

## All commands

`python -m cosession` is the same command.

```text
{app}
```
{commands}"""


def page() -> str:
    """The whole of docs/command.md."""
    statuses = "\n".join(f"| {status} | {meaning} |" for status, meaning in table())
    commands = "".join(
        f"\n### {name}\n\n```text\n{help_text(name)}\n```\n" for name in sorted(COMMANDS)
    )
    return _PAGE.format(statuses=statuses, app=help_text(), commands=commands)


def help_text(command: str | None = None) -> str:
    """What `cosession COMMAND --help` prints on a terminal of 80 columns."""
    root = app.make_context("cosession", [], resilient_parsing=True, terminal_width=_WIDTH)
    if command is None:
        return app.get_help(root)
    found = app.get_command(root, command)
    if found is None:
        raise KeyError(command)
    context = click.Context(found, info_name=command, parent=root)
    return found.get_help(context)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(page())
