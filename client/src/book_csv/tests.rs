//! What a person sees when a book is right and when it is wrong.

use super::*;

const HEADER: &str = "id,underlying,kind,spot,strike,rate,dividend,volatility,expiry,quantity,fixings,barrier,monitoring,payout";

fn book(rows: &[&str]) -> String {
    format!("{HEADER}\n{}\n", rows.join("\n"))
}

fn message(text: &str) -> String {
    match parse(text.as_bytes()) {
        Ok(_) => String::new(),
        Err(error) => error.in_file("book.csv").to_string(),
    }
}

#[test]
fn every_kind_of_contract_reads_as_it_is_written() {
    let text = book(&[
        "# a comment, with commas",
        "c1, ACME, european_call, 100, 110, 0.03, , 0.2, 1, , , , ,",
        "a1,ACME,asian_put,100,95,0.03,0.01,0.2,1,-5,0.25 0.5  0.75 1.0,,,",
        "",
        "b1,ACME,down_and_out_call,100,100,0.03,0,0.2,1,2,,80,continuous,",
        "b2,ACME,down_and_out_put,100,100,0.03,0,0.2,1,2,,80,0.5 1,",
        "\"d1, the digital\",ACME,digital_call,1e2,100,0.03,0,0.2,1,2,,,,10.5",
        ",,,,,,,,,,,,,",
    ]);
    let contracts = parse(text.as_bytes()).unwrap();
    assert_eq!(contracts.len(), 5);
    assert_eq!((contracts[0].dividend, contracts[0].quantity), (0.0, 1.0));
    assert_eq!(contracts[0].id, "c1");
    assert_eq!(contracts[1].fixings, [0.25, 0.5, 0.75, 1.0]);
    assert_eq!(contracts[1].quantity, -5.0);
    assert_eq!(contracts[2].monitoring, Some(MonitoringSpec::Continuous));
    assert_eq!(contracts[3].monitoring, Some(MonitoringSpec::Dates(vec![0.5, 1.0])));
    assert_eq!(contracts[4].id, "d1, the digital");
    assert_eq!((contracts[4].spot, contracts[4].payout), (100.0, Some(10.5)));
}

#[test]
fn columns_may_come_in_any_order_with_a_byte_order_mark_and_windows_line_ends() {
    let text = "\u{feff}kind,id,underlying,strike,spot,rate,volatility,expiry\r\neuropean_put,p,X,90,100,0,0.3,2\r\n";
    let contracts = parse(text.as_bytes()).unwrap();
    assert_eq!((contracts[0].spot, contracts[0].strike), (100.0, 90.0));
    assert_eq!(contracts[0].kind, ContractKind::EuropeanPut);
}

#[test]
fn a_wrong_cell_is_named_by_row_line_column_value_and_what_is_allowed() {
    let good = "c1,ACME,european_call,100,110,0.03,,0.2,1,,,,,";
    let cases = [
        (
            "c2,ACME,european_call,100,110,0.03,,-0.2,1,,,,,",
            "book.csv row 2 (line 4), column volatility: \"-0.2\": must be greater than 0 and at most 10",
        ),
        (
            "c2,ACME,european_call,100,0.0.3,0.03,,0.2,1,,,,,",
            "book.csv row 2 (line 4), column strike: \"0.0.3\": must be a finite number with a decimal point, as in 0.25",
        ),
        (
            "c2,ACME,european_call,100,NaN,0.03,,0.2,1,,,,,",
            "book.csv row 2 (line 4), column strike: \"NaN\": must be a finite number with a decimal point, as in 0.25",
        ),
        (
            "c2,ACME,european_call,100,,0.03,,0.2,1,,,,,",
            "book.csv row 2 (line 4), column strike: empty: every contract needs a number here",
        ),
        (
            "c2,ACME,swap,100,110,0.03,,0.2,1,,,,,",
            "book.csv row 2 (line 4), column kind: \"swap\": must be one of european_call, european_put, asian_call, \
             asian_put, down_and_out_call, down_and_out_put, digital_call, digital_put, basket_call, basket_put, american_call, american_put",
        ),
        (
            "c1,ACME,european_call,100,110,0.03,,0.2,1,,,,,",
            "book.csv row 2 (line 4), column id: \"c1\": another contract of the book has this id; ids must be unique",
        ),
        (
            "c2,ACME,european_call,101,110,0.03,,0.2,1,,,,,",
            "book.csv row 2 (line 4), column spot: \"101\": must equal row 1, column spot = 100, since both are on \"ACME\"",
        ),
        (
            "c2,ACME,asian_call,100,110,0.03,,0.2,1,,0.5 1.5,,,",
            "book.csv row 2 (line 4), column fixings: \"1.5\": must be later than 0.5 and no later than the expiry, 1",
        ),
        (
            "c2,ACME,asian_call,100,110,0.03,,0.2,1,,0.5 x,,,",
            "book.csv row 2 (line 4), column fixings: \"x\": must be dates in years separated by spaces, as in 0.25 0.5",
        ),
        (
            "c2,ACME,down_and_out_call,100,110,0.03,,0.2,1,,,90,always,",
            "book.csv row 2 (line 4), column monitoring: \"always\": must be `continuous` or dates in years separated by \
             spaces, as in 0.25 0.5",
        ),
        (
            "c2,ACME,down_and_out_call,100,110,0.03,,0.2,1,,,,continuous,",
            "book.csv row 2 (line 4), column barrier: missing: a down-and-out contract needs a barrier below the spot",
        ),
        (
            "c2,ACME,european_call,100,110,0.03,,0.2,1,,,,,7",
            "book.csv row 2 (line 4), column payout: \"7\": only digital contracts have a payout",
        ),
        ("c2,ACME,european_call,100,110,0.03,,0.2,1", "book.csv row 2 (line 4): 9 cells: the header has 14"),
    ];
    for (row, expected) in cases {
        assert_eq!(message(&book(&[good, "# comment", row])), expected);
    }
}

#[test]
fn every_wrong_header_cell_is_named() {
    assert_eq!(
        message("id,id,underlying,kind,spot,strike,rate,vol,expiry\n"),
        "book.csv: header: \"id\": this column is named twice\n\
         book.csv: header: \"vol\": no such column; the columns are id, underlying, kind, spot, strike, rate, \
         dividend, volatility, expiry, quantity, fixings, barrier, monitoring, payout, basket, exercise\n\
         book.csv: header: the column volatility is missing; every contract needs it"
    );
    assert!(message("").starts_with("book.csv: no header row"));
    assert!(message("# only a comment\n\n").starts_with("book.csv: no header row"));
    assert_eq!(
        message(&format!("{HEADER}\n# nothing\n")),
        "book.csv: no rows: a book needs at least one contract below its header"
    );
}

#[test]
fn wrong_rows_are_listed_in_the_order_of_the_file_and_at_most_twenty() {
    let rows: Vec<String> = (1..=60)
        .map(|row| match row % 2 {
            0 => format!("c{row},ACME,european_call,100,x,0.03,,0.2,1,,,,,"),
            _ => format!("c{row},ACME,european_call,100,110,0.03,,9000,1,,,,,"),
        })
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let message = message(&book(&rows));
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), FINDINGS_MAX);
    for (position, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("book.csv row {} ", position + 1)), "{line}");
    }
}

#[test]
fn what_is_too_large_or_not_text_is_refused() {
    let rows = vec!["c,ACME,european_call,100,110,0.03,,0.2,1,,,,,"; CONTRACTS_MAX + 1];
    assert_eq!(
        message(&book(&rows)),
        format!("book.csv: more than {CONTRACTS_MAX} rows: a book may have at most {CONTRACTS_MAX}")
    );
    let error = parse(&vec![b'x'; BOOK_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error.findings, [BookFinding::TooLarge { bytes: BOOK_BYTES_MAX + 1 }]);
    let mut bytes = book(&[]).into_bytes();
    bytes.extend(b"c\xff,ACME,european_call,100,110,0.03,,0.2,1,,,,,\n");
    let error = parse(&bytes).unwrap_err().in_file("book.csv");
    // The helper leaves one empty line between the header and the row.
    assert_eq!(error.to_string(), "book.csv row 1 (line 3): not UTF-8 text");
}

#[test]
fn a_book_separated_by_semicolons_is_one_error_that_says_so() {
    let text = format!("{}\nc;ACME;european_call;100;100;0,03;;0,2;1;;;;;\n", HEADER.replace(',', ";"));
    assert_eq!(
        message(&text),
        "book.csv: header: columns are separated by commas, not semicolons; numbers have a decimal point"
    );
}

#[test]
fn baskets_and_american_contracts_are_rows_like_any_other() {
    let header = "id,underlying,kind,spot,strike,rate,volatility,expiry,basket,exercise";
    let text = format!(
        "{header}\nc,ACME,european_call,100,100,0.03,,1,,\nb,,basket_put,,95,0.03,,1,ACME:0.5 | BETA:-0.25,\n\
         n,ACME,american_put,100,100,0.03,0.2,1,,12\nd,ACME,american_call,100,100,0.03,0.2,1,,0.5 0.75\n"
    );
    let book = parse(text.as_bytes()).unwrap();
    assert_eq!(book[0].volatility, 0.0, "a job under heston does without");
    let part = |underlying: &str, weight| BasketPart { underlying: underlying.to_owned(), weight };
    assert_eq!(book[1].basket, [part("ACME", 0.5), part("BETA", -0.25)]);
    assert_eq!(book[2].exercise, Some(ExerciseSpec::Count(12)));
    assert_eq!(book[3].exercise, Some(ExerciseSpec::Dates(vec![0.5, 0.75])));
    for (row, expected) in [
        (
            "b,,basket_put,,95,0.03,,1,ACME,",
            "column basket: \"ACME\": must be names and weights, as in ACME:0.5|BETA:-0.5",
        ),
        (
            "b,,basket_put,,95,0.03,,1,A:1|A:2,",
            "column basket: \"\\\"A\\\"\": is in the basket already: add its weights",
        ),
        ("b,,basket_put,,95,0.03,,1,A:nan,", "column basket: \"A:nan\": must be names and weights"),
        ("a,X,american_put,100,100,0.03,0.2,1,,", "column exercise: missing: an American contract needs"),
        ("a,X,american_put,100,100,0.03,0.2,1,,0", "column exercise: \"0\": must be from 1 to 5040"),
        (
            "a,X,american_put,100,100,0.03,0.2,1,,0.5 2.5",
            "must be later than 0.5 and no later than the expiry, 1",
        ),
        (
            "a,X,american_put,100,100,0.03,0.2,1,,soon",
            "must be a number of dates, or dates in years separated by spaces",
        ),
        ("c,X,european_call,100,100,0.03,0.2,1,,4", "only American contracts are exercised early"),
    ] {
        let found = message(&format!("{header}\n{row}\n"));
        assert!(found.contains(expected), "{row}: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}
