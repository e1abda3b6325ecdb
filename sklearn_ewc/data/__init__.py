"""What users pass in: checked, turned into what a net is trained on, cut into batches."""
