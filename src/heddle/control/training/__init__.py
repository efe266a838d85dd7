"""The TrainingJob controller: a Workload and pods for each job, and a world for its processes to meet in."""
