"""The rules of the loop: who claims a job, what is learned, replayed and held out, and what is promoted."""
