"""What lasts of a run: its checkpoints, what MMAudio's files give to it, and what it gives away.

pieces.py     what a checkpoint is made of
rank_file.py  the file that a rank writes
staging.py    memory that pieces are copied to, while training goes on
writing.py    the thread that writes
stored.py     checkpoints as a run saves them
reading.py    a checkpoint on the disk
folders.py    those of a run: the newest that loads, the run's lock, what is left of dead runs
about.py      what a run says of itself in them
pickles.py    files of torch.save, read without running what is in them
imported.py   files of MMAudio
profiles.py   stored averages of weights
exported.py   weights for others, and card.py what is said of them
"""
