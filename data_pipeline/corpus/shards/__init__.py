"""Text filters and deduplication of corpora that one process would take too long for, as pure functions of files.

A folder holds what is to be done (`plan`). Work goes in stages; a stage is one function of the folder and a shard's
number (`stages`), reads what the stages before it wrote for any shard and writes its own. So every runner gives the
same bytes (`runners`): one process, several, Ray, or an array job that calls `stages.run` for each stage and shard.

    split     lines of the input → text filters → pairs, partitioned by a hash of their question
    sign      pairs in order, MinHash signatures, band keys, partitioned by key
    bucket    windows in each bucket → candidates, partitioned by their first question
    verify    exact similarity and guards → questions that are alike
    choose    which of the pairs with questions alike stay
    write     kept and dropped pairs in the order of their ids
    merge     one file of each, counts, examples: in one process, a line at a time

Memory is that of a shard's share, but for the pairs of questions that are alike, which every shard of `choose` reads.
The same bytes come for every number of shards.
"""
