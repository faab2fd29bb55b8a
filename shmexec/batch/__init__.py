"""`shmexec map`: one function over a folder of files.

    parent                                              worker
    patterns -> sources -> jobs (pure) -> names of one file ->  read; call; write a temporary file; fsync
                record: what was done before                    note in the journal; rename
    bar, summary, exit status   <---- a short report ---------  bytes, or why not

Only names and reports cross: a worker reads its file and writes its result. So the memory is that of one file a
worker, however many there are, and reading and writing happen in parallel, too. Rejected: the parent reads, and arrays
go by name: as many copies (none), but one process reads for all, and what it reads ahead has to be bounded by hand.
"""
