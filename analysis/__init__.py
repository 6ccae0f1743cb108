"""What came out of a study: its runs, findings, report and exported configuration. No torch, no Ray.

`analysis.analyze.analyze_study(study_dir)` does all of it; nothing is imported here, so that the command line starts
quickly.
"""
