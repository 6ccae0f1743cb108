"""What came out of a study: its runs, findings, report and exported configuration. No torch, no Ray.

`analysis.report.analyze(study_dir)` does all of it; nothing is imported here, so that the command line starts quickly.
"""
