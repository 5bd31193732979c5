"""`make chaos`: real processes, faults at random moments, and an observer that trusts nobody.

    python -m tests.chaos [--seed N] [--rounds N] [--only NAME]... [--first N] [--list] [--output FILE]

One JSON line a round; the exit code is 1 when a round found something wrong. All that is random in a round comes from
the seed, its name and its number, so the line of a round says with which options it is played again.

What a round is made of:

- `world.World`: the embedded API server, `cloudhub run`, simulated nodes and real agents, each in processes of their
  own, with what may be done to them: `kill_hub`, `stop_hub` (SIGTERM, whose exit must be clean), `start_hub`,
  `kill_fleet`, `start_fleet`, `kill_agent`, `start_agent`, `kill_api`, `start_api`. A `world.Plan` says how many there
  are of what; rounds of one plan are played in one world, one after the other. What the harness does to a world it
  writes into `world.faults` (`evidence.Faults`), by which readiness is judged: ``with world.faults.of("api"):``. The
  kinds are ``hub``, ``api`` and ``store``; ``must_show=True`` when /readyz has to be red during it.
- `edges`: simulated nodes, hundreds in a process, on the wire and transport of `tests.bench.edges`. They keep an
  append-only log of what they were asked and did, which is also the durable journal of those that are as our agent is.
  What they do is in the image's name (`image`): how long an action takes, and which nodes fail.
- `agents`: what real agents and simulated nodes did, read from their files: journals, image stores, logs.
- `observer.Observer`: follows all jobs by a watch of its own, and asks for /readyz all the time.
- `verdict`: what must hold of the evidence. Pure, and tested with each kind of lie.
- `rounds.Round`: a name, a plan, and ``async def play(self, scene)``. A `rounds.Scene` has the world, a
  ``random.Random``, and ``await scene.job(...)`` to make a job, ``await scene.ended(job)``. Whoever writes a round does
  something bad to the world while jobs run, and undoes it; `Scene.finish` then waits until all jobs have ended and the
  hub is ready, runs another job on the same nodes, waits until nobody keeps a report that was not acknowledged, gathers
  the evidence and judges it. ``job(true_reasons=...)`` names patterns of reasons that the round's fault makes true;
  else a node task may only fail for what its node says that it did, or because the node was away, and with
  ``no_failures`` and ``no_timeouts`` not even so.
- `breaks`: the program broken on purpose, and the rounds that must notice. A round that finds nothing says something
  only when it would: whoever writes one for a new promise adds the `breaklist.Break` that takes the promise away.

A round joins the others by its entry in `catalogue.ROUNDS`. A world of another make (namespaces, small disks) is a
subclass of `World`, named by the round's ``world``.
"""
