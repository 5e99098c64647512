"""The rules of the loop: who claims a job, what is learned and replayed, what is promoted, and when to consolidate."""
