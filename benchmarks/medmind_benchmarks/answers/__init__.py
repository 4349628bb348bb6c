"""Multiple choice by likelihood: questions, where they come from, how options are scored, what accuracy that makes."""
