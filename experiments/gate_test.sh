#!/usr/bin/env bash
# usage: gate_test.sh NIBBLE RUN_FOLDER
# Holds a run's gates, with a JUnit case for each.
exec "$1" gate "$2" ${XML_OUTPUT_FILE:+--junit "$XML_OUTPUT_FILE"}
