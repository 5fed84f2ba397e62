"""Human review of a corpus: one page in the browser, and a log of decisions that a build reads.

`corpus` reads the records, `order` says which are shown and in what order, `session` who is shown what and what was
done, `app` and `guard` are the HTTP side, `server` runs it, `page/` is what the browser loads. `log` is the file of
actions, `decisions` what they come to, `summary` and `agreement` the figures. What is done with a rejected or an edited
record is the build's.
"""
