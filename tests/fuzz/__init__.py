"""Every byte that enters, spoiled: what reads it succeeds, or raises its own error in bounded words without a secret.

`mutate` spoils valid samples, as documents and as bytes; `targets` names what reads bytes, with samples and the errors
that it may raise; the tests feed one to the other. Servers and files, where something must be survived, have modules of
their own. In the gate the runs are few and the same each time; `make fuzz EXAMPLES=20000` makes more
and others each time, and prints how many; a failure prints what reproduces it.
"""
