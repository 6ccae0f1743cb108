"""What else a study shows, beside which level to choose: one topic a file, each StudyRuns and Findings -> Topic."""
